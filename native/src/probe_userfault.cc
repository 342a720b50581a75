#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "file_calls.h"
#include "kernel_abi.h"
#include "probe.h"
#include "probe_vcpu.h"
#include "scratch.h"

namespace pagewake::probe {

namespace {

constexpr uint64_t kPages = 16;
constexpr uint64_t kSize = kPages * kPageBytes;
constexpr uint8_t kByte = 0x5a;
constexpr uint64_t kReadsPage = kReadsAt / kPageBytes;

// Memory at address 0 of a virtual machine, whose stage-2 faults the bitmap is to stop.
struct Slot {
  int vm;
  int file;
  const Scratch& mapping;
  uint64_t* bitmap;
  bool guestMemfd;

  int set(uint32_t extraFlags) const {
    abi::UserspaceMemoryRegion2 region{};
    region.flags = (guestMemfd ? abi::kMemSlotGuestMemfd : 0) | extraFlags;
    region.memorySize = kSize;
    region.userspaceAddr = mapping.address();
    region.guestMemfd = guestMemfd ? static_cast<uint32_t>(file) : 0;
    region.userfaultBitmap = (extraFlags & abi::kMemSlotUserfault) != 0 ? reinterpret_cast<uint64_t>(bitmap) : 0;
    return ::ioctl(vm, abi::kKvmSetUserMemoryRegion2, &region) == 0 ? 0 : errno;
  }
  void remove() const {
    abi::UserspaceMemoryRegion2 none{};
    ::ioctl(vm, abi::kKvmSetUserMemoryRegion2, &none);
  }
};

Capability slot_flag(const file::GuestMemfd& memory) {
  const char* name = "KVM_MEM_USERFAULT";
  if (memory.error != 0) return {name, false, "needs guest_memfd mmap"};
  const Scratch mapping(memory.fd.get(), kSize);
  if (!mapping.valid()) return {name, false, answer("mmap", mapping.error())};
  uint64_t bitmap[1] = {};
  const Slot slot{memory.vm.get(), memory.fd.get(), mapping, bitmap, true};
  const int control = slot.set(0);
  if (control != 0) return {name, false, answer("a memslot on guest_memfd, without the flag", control)};
  // A slot of that number stands now: it goes, so that the flag alone is what is tried.
  slot.remove();
  const int error = slot.set(abi::kMemSlotUserfault);
  slot.remove();
  return {name, error == 0, answer("a memslot on guest_memfd with the flag", error)};
}

int write_page(int file, uint64_t page, const void* start, size_t length) {
  uint8_t bytes[kPageBytes] = {};
  std::memcpy(bytes, start, length);
  return ::pwrite(file, bytes, sizeof bytes, static_cast<off_t>(page * kPageBytes)) == static_cast<ssize_t>(sizeof bytes) ? 0 : errno;
}

// A vCPU reads a page whose bit is set: it has to exit, and once the page is written and its bit clear, to go on with what was written.
Capability exits(const char* name, const Slot& slot) {
  __atomic_store_n(slot.bitmap, (uint64_t{1} << kPages) - 1, __ATOMIC_RELEASE);
  const int wrote = write_page(slot.file, 0, kReadByteAndHalt, sizeof kReadByteAndHalt);
  if (wrote != 0) return {name, false, answer("write() of the code", wrote)};
  __atomic_fetch_and(slot.bitmap, ~uint64_t{1}, __ATOMIC_RELEASE);
  const int error = slot.set(abi::kMemSlotUserfault);
  if (error != 0) return {name, false, answer("KVM_SET_USER_MEMORY_REGION2 with KVM_MEM_USERFAULT", error)};
  Vcpu vcpu(slot.vm);
  if (!vcpu.valid()) return {name, false, vcpu.error()};
  if (vcpu.run() != Vcpu::Exit::userfault) return {name, false, "a vCPU that reads a page whose bit is set: " + vcpu.said()};
  if (vcpu.gpa() / kPageBytes != kReadsPage) return {name, false, "a vCPU that reads at 0x1000 " + vcpu.said()};
  const int filled = write_page(slot.file, kReadsPage, &kByte, 1);
  if (filled != 0) return {name, false, answer("write() of the page", filled)};
  __atomic_fetch_and(slot.bitmap, ~(uint64_t{1} << kReadsPage), __ATOMIC_RELEASE);
  if (vcpu.run() != Vcpu::Exit::halted) return {name, false, "after write() and with the bit clear: " + vcpu.said()};
  if (vcpu.byte() != kByte) return {name, false, "the vCPU read something else than was written"};
  return {name, true, "a vCPU exited where the bit was set, and read what write() put there once it was clear"};
}

Capability on_guest_memfd() {
  const char* name = "KVM userfault on guest_memfd";
  const file::GuestMemfd memory = file::create_guest_memfd(kSize, kGuestMemfdShared | abi::kGuestMemfdWrite);
  if (memory.error != 0) return {name, false, answer("KVM_CREATE_GUEST_MEMFD(MMAP | INIT_SHARED | WRITE)", memory.error)};
  const Scratch mapping(memory.fd.get(), kSize);
  if (!mapping.valid()) return {name, false, answer("mmap", mapping.error())};
  uint64_t bitmap = 0;
  return exits(name, Slot{memory.vm.get(), memory.fd.get(), mapping, &bitmap, true});
}

Capability on_memfd() {
  const char* name = "KVM userfault on memfd";
  const UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  const UniqueFd vm(kvm.open() ? ::ioctl(kvm.get(), KVM_CREATE_VM, 0) : -1);
  if (!vm.open()) return {name, false, answer("KVM_CREATE_VM", errno)};
  const UniqueFd file = scratch_file(kSize);
  const Scratch mapping(file.get(), kSize);
  if (!file.open() || !mapping.valid()) return {name, false, answer("a memfd", errno)};
  uint64_t bitmap = 0;
  return exits(name, Slot{vm.get(), file.get(), mapping, &bitmap, false});
}

}  // namespace

void kvm_userfault(std::vector<Capability>& rows, const file::GuestMemfd& mapped) {
  rows.push_back(slot_flag(mapped));
  rows.push_back(on_guest_memfd());
  rows.push_back(on_memfd());
}

}  // namespace pagewake::probe
