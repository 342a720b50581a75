#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "file_calls.h"
#include "kernel_abi.h"
#include "probe.h"
#include "scratch.h"
#include "uffd_calls.h"

namespace pagewake::probe {

namespace {

constexpr uint64_t kSize = 16 * kPageBytes;
constexpr uint64_t kMmapFlags = abi::kGuestMemfdMmap | abi::kGuestMemfdInitShared;

Capability device() {
  const UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm.open()) return {"/dev/kvm", false, answer("open", errno)};
  const UniqueFd vm(::ioctl(kvm.get(), KVM_CREATE_VM, 0));
  return {"/dev/kvm", vm.open(), answer("KVM_CREATE_VM", vm.open() ? 0 : errno)};
}

Capability maps(const file::GuestMemfd& memory) {
  const char* name = "guest_memfd mmap";
  if (memory.error != 0) return {name, false, answer("KVM_CREATE_GUEST_MEMFD(MMAP | INIT_SHARED)", memory.error)};
  const Scratch mapping(memory.fd.get(), kSize);
  if (!mapping.valid()) return {name, false, answer("mmap", mapping.error())};
  // Through the kernel, so that a page that cannot be had is no SIGBUS here.
  file::Mapping stored;
  const uint8_t byte = 0x5a;
  if (stored.map(memory.fd.get(), kSize) != 0 || stored.store({&byte, 1}, 0).kind != OutcomeKind::done) {
    return {name, false, "mapped, but a page could not be stored"};
  }
  return {name, *mapping.bytes() == byte, "a byte stored through one mapping was read through another"};
}

Capability traps(const file::GuestMemfd& memory) {
  const char* name = "userfaultfd on guest_memfd";
  if (memory.error != 0) return {name, false, "needs guest_memfd mmap"};
  UniqueFd fd = uffd::open_by_syscall(false);
  if (!fd.open()) fd = uffd::open_by_device(false);
  uffdio_api api{};
  api.api = UFFD_API;
  if (!fd.open() || ::ioctl(fd.get(), UFFDIO_API, &api) != 0) return {name, false, answer("userfaultfd", errno)};
  const Scratch mapping(memory.fd.get(), kSize);
  if (!mapping.valid()) return {name, false, answer("mmap", mapping.error())};
  uffdio_register argument{};
  argument.range = {mapping.address(), kSize};
  argument.mode = UFFDIO_REGISTER_MODE_MISSING;
  const int error = ::ioctl(fd.get(), UFFDIO_REGISTER, &argument) == 0 ? 0 : errno;
  return {name, error == 0, answer("UFFDIO_REGISTER(MISSING) on a guest_memfd mapping", error)};
}

Capability writes() {
  const char* name = "write() to guest_memfd";
  // Patched kernels want a flag for it; others refuse the flag.
  file::GuestMemfd memory = file::create_guest_memfd(kSize, kMmapFlags | abi::kGuestMemfdWrite);
  if (memory.error == EINVAL) memory = file::create_guest_memfd(kSize, 0);
  if (memory.error != 0) return {name, false, answer("KVM_CREATE_GUEST_MEMFD", memory.error)};
  const uint8_t page[kPageBytes] = {};
  const int error = ::pwrite(memory.fd.get(), page, sizeof page, 0) == static_cast<ssize_t>(sizeof page) ? 0 : errno;
  return {name, error == 0, answer("pwrite of a page", error)};
}

int set_slot(int vm, uint32_t flags, const file::GuestMemfd& memory, const Scratch& mapping, const uint64_t* bitmap) {
  abi::UserspaceMemoryRegion2 region{};
  region.flags = flags;
  region.memorySize = kSize;
  region.userspaceAddr = mapping.address();
  region.guestMemfd = static_cast<uint32_t>(memory.fd.get());
  region.userfaultBitmap = reinterpret_cast<uint64_t>(bitmap);
  return ::ioctl(vm, abi::kKvmSetUserMemoryRegion2, &region) == 0 ? 0 : errno;
}

Capability userfault_slot(const file::GuestMemfd& memory) {
  const char* name = "KVM_MEM_USERFAULT";
  if (memory.error != 0) return {name, false, "needs guest_memfd mmap"};
  const Scratch mapping(memory.fd.get(), kSize);
  if (!mapping.valid()) return {name, false, answer("mmap", mapping.error())};
  uint64_t bitmap[kSize / kPageBytes / 64 + 1] = {};
  const int control = set_slot(memory.vm.get(), abi::kMemSlotGuestMemfd, memory, mapping, nullptr);
  if (control != 0) return {name, false, answer("a memslot on guest_memfd, without the flag", control)};
  // A slot of that number stands now: with size 0 it goes, so that the flag alone is what is tried.
  abi::UserspaceMemoryRegion2 none{};
  ::ioctl(memory.vm.get(), abi::kKvmSetUserMemoryRegion2, &none);
  const int error = set_slot(memory.vm.get(), abi::kMemSlotGuestMemfd | abi::kMemSlotUserfault, memory, mapping, bitmap);
  return {name, error == 0, answer("a memslot on guest_memfd with the flag", error)};
}

}  // namespace

void kvm(std::vector<Capability>& rows) {
  rows.push_back(device());
  const file::GuestMemfd plain = file::create_guest_memfd(kSize, 0);
  const char* call = plain.error == 0 || std::strlen(plain.call) == 0 ? "KVM_CREATE_GUEST_MEMFD" : plain.call;
  rows.push_back({"guest_memfd", plain.error == 0, answer(call, plain.error)});
  const file::GuestMemfd mapped = file::create_guest_memfd(kSize, kMmapFlags);
  rows.push_back(maps(mapped));
  rows.push_back(traps(mapped));
  rows.push_back(writes());
  rows.push_back(userfault_slot(mapped));
}

}  // namespace pagewake::probe
