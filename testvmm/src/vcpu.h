// A worker that is a vCPU of KVM: KVM_RUN until paused, port I/O to the observer, stage-2 faults that no userfaultfd
// saw to a resolver.
#pragma once
#include <optional>

#include "kvm_vm.h"
#include "worker.h"

namespace testvmm {

/** A stage-2 fault that only a KVM exit shows. */
struct Stage2Fault {
  uint64_t vcpu, region, page;
  /** As KVM says them, or without it 1 for a write. */
  uint64_t flags;
};
enum class Stage2Outcome { resolved, paused };

class Stage2Resolver {
public:
  virtual ~Stage2Resolver() = default;
  /** On the vCPU's thread. Returns `paused` early if `stopWaiting` becomes true. */
  virtual Stage2Outcome resolve(const Stage2Fault &fault, const std::atomic<bool> &stopWaiting) = 0;
};

class KvmVcpu final : public Worker {
public:
  KvmVcpu(const KvmVm &vm, uint64_t index, volatile GuestContext &context, uint64_t pagesPerSecond,
          WorkerObserver &observer);
  ~KvmVcpu() override { join(); }

  int fd() const { return vcpu_.get(); }
  /** Without one, EFAULT from KVM_RUN means that memory is gone. Set while parked. */
  void setResolver(Stage2Resolver *resolver, Stage2 how) {
    resolver_ = resolver;
    stage2_ = how;
  }
  uint64_t stage2Exits() const { return stage2Exits_; }

private:
  void run() override;
  void onThreadStart() override;
  void handleExit();
  void handleError(int error);
  /** The fault behind an EFAULT of KVM_RUN, if there is a resolver for it. */
  std::optional<Stage2Fault> stage2Fault();
  void resolve(const Stage2Fault &fault);
  /** A port access is finished by the next KVM_RUN; a vCPU whose state is to be read must not have one pending. */
  void finishPendingIo();

  const uint64_t index_;
  Fd vcpu_;
  Mapping runMapping_;
  kvm_run *run_;
  Stage2Resolver *resolver_ = nullptr;
  Stage2 stage2_ = Stage2::trap;
  std::atomic<uint64_t> stage2Exits_{0};
  uint64_t samePageFaults_ = 0, lastFaultPage_ = ~0ull, lastFaultWork_ = 0;
};

} // namespace testvmm
