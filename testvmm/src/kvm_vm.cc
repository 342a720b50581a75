#include "kvm_vm.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "failure.h"
#include "kvm_uapi.h"

namespace testvmm {

KvmVm::KvmVm() : kvm_(open("/dev/kvm", O_RDWR | O_CLOEXEC)) {
  if (!kvm_) failErrno("/dev/kvm (run with --no-kvm to do the same work on plain threads)");
  vm_ = Fd(ioctl(kvm_.get(), KVM_CREATE_VM, 0));
  if (!vm_) failErrno("KVM_CREATE_VM");
  const int bytes = ioctl(kvm_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (bytes <= 0) failErrno("KVM_GET_VCPU_MMAP_SIZE");
  runBytes_ = static_cast<size_t>(bytes);
}

bool KvmVm::available() {
  const Fd kvm(open("/dev/kvm", O_RDWR | O_CLOEXEC));
  return kvm && ioctl(kvm.get(), KVM_GET_API_VERSION, 0) == KVM_API_VERSION;
}

void KvmVm::mapMemory(const BootSlot &boot, const GuestMemory &memory, const Layout &layout,
                      const UserfaultBitmap *bitmap) {
  kvm_userspace_memory_region slot0{};
  slot0.memory_size = BootSlot::kBytes;
  slot0.userspace_addr = reinterpret_cast<uintptr_t>(boot.data());
  if (ioctl(vm_.get(), KVM_SET_USER_MEMORY_REGION, &slot0) != 0) failErrno("boot memslot");
  for (uint64_t i = 0; i < layout.regions; i++) {
    MemoryRegion2 slot{};
    slot.slot = static_cast<uint32_t>(i + 1);
    slot.gpa = layout.gpa(i);
    slot.size = layout.regionBytes;
    slot.userAddress = reinterpret_cast<uintptr_t>(memory.region(i));
    if (memory.kind() == MemoryKind::guestMemfd) {
      slot.flags |= kMemGuestMemfd;
      slot.guestMemfd = static_cast<uint32_t>(memory.file());
      slot.guestMemfdOffset = layout.offset(i, 0);
    }
    if (bitmap != nullptr) {
      slot.flags |= kMemUserfault;
      slot.userfaultBitmap = bitmap->addressOf(i * layout.regionPages);
    }
    // What needs none of it is told in the way that every kernel knows; the younger one begins with the same fields.
    const unsigned long how = slot.flags == 0 ? KVM_SET_USER_MEMORY_REGION : kSetUserMemoryRegion2;
    if (ioctl(vm_.get(), how, &slot) == 0) continue;
    if (bitmap != nullptr && (errno == EINVAL || errno == ENOTTY))
      fail("--stage2 userfault: this kernel's KVM takes no bitmap for a memslot (KVM_MEM_USERFAULT: %s); the kernel of "
           "`npm run lab` does",
           strerror(errno));
    failErrno("memslot of region %lu (%s)", i, nameOf(memory.kind()));
  }
}

Fd KvmVm::createVcpu(uint64_t index) const {
  Fd vcpu(ioctl(vm_.get(), KVM_CREATE_VCPU, index));
  if (!vcpu) failErrno("KVM_CREATE_VCPU %lu", index);
  Cpuid cpuid{};
  cpuid.head.entries = Cpuid::kMaxEntries;
  if (ioctl(kvm_.get(), kGetSupportedCpuid, &cpuid) != 0 || ioctl(vcpu.get(), kSetCpuid2, &cpuid) != 0)
    failErrno("CPUID of vCPU %lu", index);
  return vcpu;
}

VcpuRegisters initialRegisters(int vcpuFd, uint64_t vcpu, uint64_t ring) {
  VcpuRegisters out = readRegisters(vcpuFd);
  kvm_segment code{}, data{};
  code.limit = data.limit = ~0u;
  code.present = data.present = code.s = data.s = code.g = data.g = 1;
  code.dpl = data.dpl = static_cast<uint8_t>(ring);
  code.selector = static_cast<uint16_t>(0x30 | ring), code.type = 11, code.l = 1;
  data.selector = static_cast<uint16_t>(0x28 | ring), data.type = 3, data.db = 1;
  kvm_sregs &s = out.sregs;
  s.cs = code;
  s.ds = s.es = s.fs = s.gs = s.ss = data;
  s.ldt = {};
  s.tr.present = 1, s.tr.type = 11;
  s.cr0 = 0x80050033; // PG AM WP NE ET MP PE
  s.cr3 = BootSlot::kPml4;
  s.cr4 = 1u << 5; // PAE
  s.efer = 0xd01;  // NXE LMA LME SCE
  out.regs = {};
  out.regs.rip = BootSlot::entryGpa();
  out.regs.rdi = BootSlot::contextGpa(vcpu);
  out.regs.rsp = BootSlot::stackTopGpa(vcpu) - 8; // as after a call: 8 below a multiple of 16
  out.regs.rflags = 0x3202;                       // IOPL 3: `out` is legal at CPL 3
  return out;
}

VcpuRegisters readRegisters(int vcpuFd) {
  VcpuRegisters out{};
  if (ioctl(vcpuFd, KVM_GET_REGS, &out.regs) != 0 || ioctl(vcpuFd, KVM_GET_SREGS, &out.sregs) != 0)
    failErrno("reading a vCPU's registers");
  return out;
}

void writeRegisters(int vcpuFd, const VcpuRegisters &registers) {
  if (ioctl(vcpuFd, KVM_SET_SREGS, &registers.sregs) != 0 || ioctl(vcpuFd, KVM_SET_REGS, &registers.regs) != 0)
    failErrno("writing a vCPU's registers");
}

uint64_t tscKhz(int vcpuFd) {
  const int khz = ioctl(vcpuFd, KVM_GET_TSC_KHZ, 0);
  if (khz <= 0) failErrno("KVM_GET_TSC_KHZ");
  return static_cast<uint64_t>(khz);
}

} // namespace testvmm
