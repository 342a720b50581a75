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
constexpr uint64_t kMissing = UFFDIO_REGISTER_MODE_MISSING;
constexpr uint64_t kMissingAndMinor = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR;

struct Page {
  explicit Page(uint8_t byte) { std::memset(bytes, byte, sizeof bytes); }
  bool is_at(const Scratch& mapping, uint64_t page) const {
    return std::memcmp(const_cast<const uint8_t*>(mapping.bytes()) + page * kPageBytes, bytes, sizeof bytes) == 0;
  }
  std::span<const uint8_t> span() const { return bytes; }
  uint8_t bytes[kPageBytes];
};

int outcome_error(const Outcome& outcome) {
  switch (outcome.kind) {
    case OutcomeKind::done:
      return 0;
    case OutcomeKind::present:
      return EEXIST;
    case OutcomeKind::absent:
      return EFAULT;
    case OutcomeKind::noMemory:
      return ENOMEM;
    case OutcomeKind::refused:
      return outcome.error;
    default:
      return EAGAIN;
  }
}

// A guest_memfd mapping under a userfaultfd. Nobody touches a page of it that was not filled: this thread would wait for itself.
class Trapped {
 public:
  Trapped(const file::GuestMemfd& memory, uint64_t mode) : fd_(uffd::open_by_syscall(false)), mapping_(memory.fd.get(), kSize) {
    if (!fd_.open()) fd_ = uffd::open_by_device(false);
    // Mappings of one's own are trapped without any privilege.
    if (!fd_.open()) fd_ = uffd::open_by_syscall(true);
    uffdio_api api{};
    api.api = UFFD_API;
    if (!fd_.open() || ::ioctl(fd_.get(), UFFDIO_API, &api) != 0) {
      said_ = answer("userfaultfd", errno);
    } else if (!mapping_.valid()) {
      said_ = answer("mmap", mapping_.error());
    } else {
      uffdio_register argument{};
      argument.range = {mapping_.address(), kSize};
      argument.mode = mode;
      registered_ = ::ioctl(fd_.get(), UFFDIO_REGISTER, &argument) == 0;
      const char* call = mode == kMissing ? "UFFDIO_REGISTER(MISSING)" : "UFFDIO_REGISTER(MISSING | MINOR)";
      said_ = answer(std::string(call) + " on a guest_memfd mapping", registered_ ? 0 : errno);
    }
  }

  bool registered() const { return registered_; }
  const std::string& said() const { return said_; }
  int fd() const { return fd_.get(); }
  const Scratch& mapping() const { return mapping_; }
  uint64_t at(uint64_t page) const { return mapping_.address() + page * kPageBytes; }

 private:
  UniqueFd fd_;
  Scratch mapping_;
  bool registered_ = false;
  std::string said_;
};

Capability traps(const file::GuestMemfd& memory) {
  const char* name = "userfaultfd on guest_memfd";
  if (memory.error != 0) return {name, false, "needs guest_memfd mmap"};
  const Trapped trap(memory, kMissing);
  return {name, trap.registered(), trap.said()};
}

Capability resolves(const file::GuestMemfd& memory) {
  const char* name = "userfaultfd missing and minor on guest_memfd";
  if (memory.error != 0) return {name, false, "needs guest_memfd mmap"};
  const Trapped trap(memory, kMissingAndMinor);
  if (!trap.registered()) return {name, false, trap.said()};
  const Page copied(0x5a), stored(0xa5);
  const Outcome copy = uffd::copy(trap.fd(), trap.at(1), copied.bytes, sizeof copied.bytes, true);
  if (copy.kind != OutcomeKind::done) return {name, false, answer("UFFDIO_COPY", outcome_error(copy))};
  // Into the page cache by another mapping, which nobody watches.
  file::Mapping other;
  if (other.map(memory.fd.get(), kSize) != 0 || other.store(stored.span(), 2 * kPageBytes).kind != OutcomeKind::done) {
    return {name, false, "a page could not be stored through another mapping"};
  }
  const Outcome mapped = uffd::continue_pages(trap.fd(), trap.at(2), kPageBytes);
  if (mapped.kind != OutcomeKind::done) return {name, false, answer("UFFDIO_CONTINUE of a page that is in the cache", outcome_error(mapped))};
  if (!copied.is_at(trap.mapping(), 1) || !stored.is_at(trap.mapping(), 2)) {
    return {name, false, "the pages hold something else than was put there"};
  }
  return {name, true, "a page by UFFDIO_COPY and one by UFFDIO_CONTINUE were read back"};
}

Capability writes() {
  const char* name = "write() to guest_memfd";
  // Patched kernels want a flag for it; others refuse the flag.
  file::GuestMemfd memory = file::create_guest_memfd(kSize, kGuestMemfdShared | abi::kGuestMemfdWrite);
  if (memory.error == EINVAL) memory = file::create_guest_memfd(kSize, kGuestMemfdShared);
  if (memory.error != 0) return {name, false, answer("KVM_CREATE_GUEST_MEMFD(MMAP | INIT_SHARED)", memory.error)};
  const Page first(0x5a), second(0xa5);
  const Outcome wrote = file::write(memory.fd.get(), first.span(), kPageBytes);
  if (wrote.kind != OutcomeKind::done) return {name, false, answer("pwrite of a page", outcome_error(wrote))};
  const Outcome again = file::write(memory.fd.get(), second.span(), kPageBytes);
  if (again.kind != OutcomeKind::present) return {name, false, answer("pwrite of a page that is there (EEXIST is due)", outcome_error(again))};
  const Scratch mapping(memory.fd.get(), kSize);
  if (!mapping.valid()) return {name, false, answer("mmap", mapping.error())};
  const bool right = first.is_at(mapping, 1);
  return {name, right,
          right ? "an absent page was filled and seen through a mapping, a second write() of it said EEXIST"
                : "the page holds something else than was written"};
}

}  // namespace

void guest_memfd(std::vector<Capability>& rows, const file::GuestMemfd& mapped) {
  rows.push_back(traps(mapped));
  rows.push_back(resolves(mapped));
  rows.push_back(writes());
}

}  // namespace pagewake::probe
