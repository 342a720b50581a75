#include "vcpu.h"

#include <signal.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "events.h"
#include "failure.h"
#include "kvm_uapi.h"

namespace testvmm {
namespace {

/** The run page of this thread's vCPU, for the signal handler. */
thread_local kvm_run *volatile currentRun = nullptr;

/** Setting immediate_exit here, not only at the look at the pause flag, closes the gap between that look and KVM_RUN.
 */
void onKick(int) {
  kvm_run *const run = currentRun;
  if (run != nullptr) __atomic_store_n(&run->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

/** An EFAULT for the same page this often, each after an answer, is no progress. */
constexpr uint64_t kMaxRefaults = 1000;

} // namespace

void Worker::installKickSignal() {
  struct sigaction action{};
  action.sa_handler = onKick; // no SA_RESTART: the sleeps of keepPace end too
  sigaction(SIGUSR1, &action, nullptr);
}

KvmVcpu::KvmVcpu(const KvmVm &vm, uint64_t index, volatile GuestContext &context, uint64_t pagesPerSecond,
                 WorkerObserver &observer)
    : Worker(text("vcpu%d", static_cast<int>(index)), context, pagesPerSecond, observer), index_(index),
      vcpu_(vm.createVcpu(index)) {
  void *address = mmap(nullptr, vm.runBytes(), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_.get(), 0);
  if (address == MAP_FAILED) failErrno("run page of vCPU %lu", index);
  runMapping_ = Mapping(address, vm.runBytes());
  run_ = static_cast<kvm_run *>(address);
}

void KvmVcpu::onThreadStart() { currentRun = run_; }

void KvmVcpu::run() {
  for (;;) {
    __atomic_store_n(&run_->immediate_exit, 0, __ATOMIC_SEQ_CST);
    if (pauseRequested()) return finishPendingIo();
    if (ioctl(vcpu_.get(), KVM_RUN, 0) == 0)
      handleExit();
    else if (errno != EINTR && errno != EAGAIN)
      handleError(errno);
  }
}

void KvmVcpu::finishPendingIo() {
  __atomic_store_n(&run_->immediate_exit, 1, __ATOMIC_SEQ_CST);
  ioctl(vcpu_.get(), KVM_RUN, 0); // EINTR, always
  __atomic_store_n(&run_->immediate_exit, 0, __ATOMIC_SEQ_CST);
}

void KvmVcpu::handleExit() {
  if (run_->exit_reason == KVM_EXIT_IO && run_->io.direction == KVM_EXIT_IO_OUT) return onOut(run_->io.port);
  if (run_->exit_reason == KVM_EXIT_INTR) return;
  kvm_regs regs{};
  ioctl(vcpu_.get(), KVM_GET_REGS, &regs);
  events::failNow(
      exit_code::guestFailed, "GUEST",
      text("%s stopped: KVM exit %u at rip %#llx (8 is a triple fault, 9 a refused entry, 17 an internal error)",
           name().c_str(), run_->exit_reason, regs.rip));
}

void KvmVcpu::handleError(int error) {
  if (error == EFAULT && resolver_ != nullptr)
    if (const auto fault = stage2Fault()) return resolve(*fault);
  if (error == EFAULT || error == EHWPOISON) {
    events::waitForReason();
    events::failNow(exit_code::memoryGone, "MEMORY_GONE",
                    text("%s cannot go on: KVM_RUN says %s while it touches page %lu of region %lu; the page is "
                         "poisoned or its pager is gone",
                         name().c_str(), strerror(error), context().touchPage, context().touchRegion));
  }
  events::failNow(exit_code::guestFailed, "GUEST", text("%s: KVM_RUN: %s", name().c_str(), strerror(error)));
}

std::optional<Stage2Fault> KvmVcpu::stage2Fault() {
  volatile GuestContext &c = context();
  if (stage2_ == Stage2::exit) {
    if (c.touchKind == touch::none)
      events::failNow(exit_code::guestFailed, "GUEST", text("%s: a stage-2 fault outside its RAM", name().c_str()));
    return Stage2Fault{index_, c.touchRegion, c.touchPage, c.touchKind == touch::write ? 1u : 0u};
  }
  // The union of exits begins with `hw`; headers of older kernels have no member for this one.
  MemoryFault exit{};
  memcpy(&exit, &run_->hw, sizeof exit);
  if (run_->exit_reason != kExitMemoryFault || (exit.flags & kMemoryExitUserfault) == 0) return std::nullopt;
  for (uint64_t region = 0; region < c.regions; region++) {
    const uint64_t page = (exit.gpa - c.regionBase[region]) / kPageBytes;
    if (exit.gpa >= c.regionBase[region] && page < c.regionPages)
      return Stage2Fault{index_, region, page, exit.flags};
  }
  return std::nullopt;
}

void KvmVcpu::resolve(const Stage2Fault &fault) {
  volatile GuestContext &c = context();
  const uint64_t page = fault.region * c.regionPages + fault.page;
  samePageFaults_ = page == lastFaultPage_ && c.work == lastFaultWork_ ? samePageFaults_ + 1 : 0;
  lastFaultPage_ = page;
  lastFaultWork_ = c.work;
  if (samePageFaults_ > kMaxRefaults)
    events::failNow(
        exit_code::memoryGone, "STAGE2_NOT_RESOLVED",
        text("%s faults on image page %lu again and again though it was answered as resolved", name().c_str(), page));
  stage2Exits_++;
  resolver_->resolve(fault, pauseFlag());
}

} // namespace testvmm
