#include "probe_vcpu.h"

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdio>

#include "kernel_abi.h"
#include "outcome.h"
#include "probe.h"

namespace pagewake::probe {

#if defined(__x86_64__)

namespace {

// Interrupted calls are counted, so that no signal storm keeps it here.
constexpr int kTries = 100;

// From address 0 on, with everything else as after a reset: 16-bit code, interrupts off.
int start_at_zero(int vcpu) {
  kvm_sregs special{};
  if (::ioctl(vcpu, KVM_GET_SREGS, &special) != 0) return errno;
  special.cs.base = 0;
  special.cs.selector = 0;
  kvm_regs registers{};
  registers.rflags = 2;
  if (::ioctl(vcpu, KVM_SET_SREGS, &special) != 0 || ::ioctl(vcpu, KVM_SET_REGS, &registers) != 0) return errno;
  return 0;
}

}  // namespace

Vcpu::Vcpu(int vm) {
  const UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  const int bytes = ::ioctl(kvm.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  fd_.reset(::ioctl(vm, KVM_CREATE_VCPU, 0));
  if (!fd_.open() || bytes < static_cast<int>(sizeof(kvm_run))) {
    error_ = answer("KVM_CREATE_VCPU", errno);
    return;
  }
  void* at = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (at == MAP_FAILED) {
    error_ = answer("mmap of the vCPU", errno);
    return;
  }
  run_ = static_cast<kvm_run*>(at);
  runBytes_ = static_cast<size_t>(bytes);
  const int error = start_at_zero(fd_.get());
  if (error != 0) error_ = answer("KVM_SET_SREGS", error);
}

Vcpu::~Vcpu() {
  if (run_ != nullptr) ::munmap(run_, runBytes_);
}

Vcpu::Exit Vcpu::run() {
  for (int i = 0; i < kTries; i++) {
    const int result = ::ioctl(fd_.get(), KVM_RUN, 0);
    const int error = result == 0 ? 0 : errno;
    if (error == EINTR || error == EAGAIN) continue;
    if (error == 0 && run_->exit_reason == KVM_EXIT_HLT) {
      said_ = "halted";
      return Exit::halted;
    }
    abi::MemoryFault fault{};
    static_assert(sizeof fault <= sizeof run_->padding);
    __builtin_memcpy(&fault, run_->padding, sizeof fault);
    char text[128];
    if (error == EFAULT && run_->exit_reason == abi::kExitMemoryFault && (fault.flags & abi::kMemoryExitUserfault) != 0) {
      gpa_ = fault.gpa;
      snprintf(text, sizeof text, "exited with USERFAULT at %#llx", static_cast<unsigned long long>(fault.gpa));
      said_ = text;
      return Exit::userfault;
    }
    snprintf(text, sizeof text, "KVM_RUN: %s, exit %u", error == 0 ? "done" : errno_name(error), run_->exit_reason);
    said_ = text;
    return Exit::other;
  }
  said_ = "KVM_RUN: EINTR, again and again";
  return Exit::other;
}

uint8_t Vcpu::byte() const {
  kvm_regs registers{};
  return ::ioctl(fd_.get(), KVM_GET_REGS, &registers) == 0 ? static_cast<uint8_t>(registers.rax) : 0;
}

#else

Vcpu::Vcpu(int) : error_("this program has a vCPU to try it with for x86-64 alone") {}
Vcpu::~Vcpu() = default;
Vcpu::Exit Vcpu::run() { return Exit::other; }
uint8_t Vcpu::byte() const { return 0; }

#endif

}  // namespace pagewake::probe
