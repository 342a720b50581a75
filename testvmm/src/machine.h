// A VM: memory, vCPUs and I/O thread, and what can be done to the whole: run, pause, save, verify. Its methods are
// called by one thread at a time, except `statsJson` and `givenBack*`.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "boot.h"
#include "kvm_vm.h"
#include "pattern.h"
#include "state.h"
#include "vcpu.h"
#include "verify.h"

namespace testvmm {

class Machine final : private WorkerObserver {
public:
  /** A new VM; `balloon area` and `zero fill` are written at once, the rest by the guest. */
  explicit Machine(const VmConfig &config);
  /** A VM out of a saved state, its RAM empty. `config` is the state's with what this side overrides. With a bitmap KVM
   * lets stage-2 faults exit by it. */
  Machine(const VmConfig &config, const SavedState &state, std::shared_ptr<const UserfaultBitmap> bitmap);
  Machine(const Machine &) = delete;

  const VmConfig &config() const { return config_; }
  const Layout &layout() const { return layout_; }
  const GuestMemory &memory() const { return *memory_; }
  /** Thread ids of the vCPUs, known before any runs. */
  std::vector<pid_t> vcpuThreads() const;
  void setStage2Resolver(Stage2Resolver *resolver, Stage2 how);
  /** While ranges are trapped, a hole is a page not there yet, not a zero page. */
  void setTrapped(bool trapped) { trapped_ = trapped; }

  bool running() const { return running_; }
  /** CLOCK_MONOTONIC when the vCPUs were let go. */
  long long resume();
  /** CLOCK_MONOTONIC when the last worker had parked. Throws Failure, and goes on, if one waits for a page for 10 s. */
  long long pause();
  SavedState save();
  /** Pauses for the time it takes. Throws Failure if a page is not served for 30 s. */
  VerifyResult verify();
  /** Flips one bit of a page; for tests of the verification. */
  void poke(uint64_t offset);
  bool filled() const { return filledWorkers_ >= workers_.size(); }
  /** The pass that the slowest vCPU is in. */
  uint64_t lowestVcpuPass() const;

  /** Balloon: marks a page as given back and drops it; false if it was already. Held off while `verify` or `save` look.
   */
  bool giveBackBalloonPage(uint64_t index);
  /** The last two pages that were, or are being, given back: an agent that died may not have come to note them. */
  std::vector<PagePlace> lastGivenBack();
  PagePlace balloonPage(uint64_t index) const;

  std::string statsJson() const;
  void reportWrong(const WrongPage &wrong) const;

private:
  void build(const SavedState *state);
  void restore(const SavedState &state);
  void adoptContext(GuestContext &context, uint64_t worker);
  void fillAtStart();
  void onFilled(Worker &worker) override;
  void onWrongPage(Worker &worker) override;
  std::unique_lock<std::timed_mutex> lockBalloon();

  VmConfig config_;
  Layout layout_;
  std::shared_ptr<const UserfaultBitmap> bitmap_;
  std::unique_ptr<KvmVm> kvm_;
  std::unique_ptr<GuestMemory> memory_;
  BootSlot boot_;
  std::vector<KvmVcpu *> vcpus_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::atomic<uint64_t> filledWorkers_{0};
  std::atomic<bool> running_{false}, trapped_{false};
  std::atomic<long long> pausedAtNs_{0};
  std::timed_mutex balloonMutex_;
  std::vector<bool> givenBack_;
  std::mutex lastMutex_;
  std::vector<PagePlace> lastGivenBack_;
};

} // namespace testvmm
