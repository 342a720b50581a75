#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "file_calls.h"
#include "kernel_abi.h"
#include "probe.h"
#include "scratch.h"

namespace pagewake::probe {

namespace {

constexpr uint64_t kSize = 16 * kPageBytes;

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

}  // namespace

void kvm(std::vector<Capability>& rows) {
  rows.push_back(device());
  const file::GuestMemfd plain = file::create_guest_memfd(kSize, 0);
  const char* call = plain.error == 0 || std::strlen(plain.call) == 0 ? "KVM_CREATE_GUEST_MEMFD" : plain.call;
  rows.push_back({"guest_memfd", plain.error == 0, answer(call, plain.error)});
  const file::GuestMemfd mapped = file::create_guest_memfd(kSize, kGuestMemfdShared);
  rows.push_back(maps(mapped));
  guest_memfd(rows, mapped);
  kvm_userfault(rows, mapped);
}

}  // namespace pagewake::probe
