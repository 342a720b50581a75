// A KVM virtual machine and the registers that start its vCPUs in long mode: at CPL 3, where the test guest runs at full
// speed even under a nested KVM that emulates ring 0, or at ring 0, as kernels run.
#pragma once
#include <linux/kvm.h>

#include "bitmap.h"
#include "boot.h"
#include "memory.h"

namespace testvmm {

struct VcpuRegisters {
  kvm_regs regs;
  kvm_sregs sregs;
};

class KvmVm {
public:
  /** Throws Failure if /dev/kvm cannot be opened or makes no VM. */
  KvmVm();
  static bool available();
  int vm() const { return vm_.get(); }
  /** With a bitmap, which outlives the VM, stage-2 faults on pages whose bit is set exit. */
  void mapMemory(const BootSlot &boot, const GuestMemory &memory, const Layout &layout, const UserfaultBitmap *bitmap);
  Fd createVcpu(uint64_t index) const;
  size_t runBytes() const { return runBytes_; }

private:
  Fd kvm_, vm_;
  size_t runBytes_ = 0;
};

/** Registers of a vCPU about to enter the guest's code for the first time, at this privilege level. */
VcpuRegisters initialRegisters(int vcpuFd, uint64_t vcpu, uint64_t ring);
VcpuRegisters readRegisters(int vcpuFd);
void writeRegisters(int vcpuFd, const VcpuRegisters &registers);
/** Ticks of the guest's time-stamp counter a millisecond. */
uint64_t tscKhz(int vcpuFd);

} // namespace testvmm
