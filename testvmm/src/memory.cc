#include "memory.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <cerrno>

#include "failure.h"
#include "kvm_uapi.h"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif

namespace testvmm {
namespace {

Fd openMemfd(const VmConfig &config) {
  const unsigned huge = config.pageBytes == kPageBytes ? 0u : MFD_HUGETLB | MFD_HUGE_2MB;
  Fd fd(memfd_create("guest-ram", MFD_CLOEXEC | huge));
  if (!fd) failErrno("memfd_create");
  if (ftruncate(fd.get(), static_cast<off_t>(config.ramBytes)) != 0)
    failErrno("memory file of %lu bytes", config.ramBytes);
  return fd;
}

Fd openGuestMemfd(const VmConfig &config, int vm) {
  if (vm < 0) fail("--memory guest_memfd: needs /dev/kvm; use memfd or anon without it");
  if (ioctl(vm, KVM_CHECK_EXTENSION, kCapGuestMemfd) <= 0)
    fail("--memory guest_memfd: this kernel's KVM has none (KVM_CAP_GUEST_MEMFD); use memfd or anon");
  CreateGuestMemfd create{};
  create.size = config.ramBytes;
  // With WRITE an agent can fill it by write(); a kernel that does not know the flag says EINVAL.
  create.flags = kGuestMemfdMmap | kGuestMemfdInitShared | kGuestMemfdWrite;
  Fd fd(ioctl(vm, kCreateGuestMemfd, &create));
  if (!fd && errno == EINVAL) {
    create.flags = kGuestMemfdMmap | kGuestMemfdInitShared;
    fd = Fd(ioctl(vm, kCreateGuestMemfd, &create));
  }
  if (!fd && errno == EINVAL)
    fail("--memory guest_memfd: this kernel's guest_memfd cannot be mapped (flags MMAP | INIT_SHARED: EINVAL; Linux "
         "6.18 or later can)");
  if (!fd) failErrno("KVM_CREATE_GUEST_MEMFD of %lu bytes", config.ramBytes);
  return fd;
}

} // namespace

GuestMemory::GuestMemory(const VmConfig &config, const Layout &layout, int vm)
    : kind_(config.memory), pageBytes_(config.pageBytes) {
  if (kind_ == MemoryKind::memfd) file_ = openMemfd(config);
  if (kind_ == MemoryKind::guestMemfd) file_ = openGuestMemfd(config, vm);
  for (uint64_t i = 0; i < layout.regions; i++) {
    const int flags = file_ ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    const off_t offset = file_ ? static_cast<off_t>(i * layout.regionBytes) : 0;
    void *address = mmap(nullptr, layout.regionBytes, PROT_READ | PROT_WRITE, flags, file_.get(), offset);
    if (address == MAP_FAILED && config.pageBytes != kPageBytes)
      failErrno("mapping region %lu: not enough free huge pages? (vm.nr_hugepages)", i);
    if (address == MAP_FAILED) failErrno("mapping region %lu", i);
    regions_.emplace_back(address, layout.regionBytes);
    // The next region is mapped below this one. Never side by side: who serves them must not rely on it.
    mmap(static_cast<char *>(address) - kPageBytes, kPageBytes, PROT_NONE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    // A destination's anonymous memory comes page by page; a huge page made out of one fault would hide the others.
    if (!file_) madvise(address, layout.regionBytes, MADV_NOHUGEPAGE);
  }
}

void GuestMemory::giveBack(uint64_t region, uint64_t page) const {
  const int advice = kind_ == MemoryKind::anon ? MADV_DONTNEED : MADV_REMOVE;
  // EAGAIN: with EVENT_REMOVE the kernel lets the caller retry when the userfaultfd is being changed meanwhile.
  while (madvise(this->page(region, page), kPageBytes, advice) != 0)
    if (errno != EAGAIN && errno != EINTR) failErrno("giving a page back (madvise)");
}

void GuestMemory::allocate(uint64_t offset) const {
  // guest_memfd takes no other mode than KEEP_SIZE.
  while (fallocate(file_.get(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset), kPageBytes) != 0)
    if (errno != EINTR) failErrno("a page of zeros at %lu of the memory file (fallocate)", offset);
}

DataMap::DataMap(const GuestMemory &memory) {
  // hugetlbfs has no SEEK_DATA of its own (all is data), guest_memfd no lseek at all: there every page is looked at.
  if (memory.kind() != MemoryKind::memfd || memory.pageBytes() != kPageBytes) return;
  const off_t end = static_cast<off_t>(memory.regionBytes() * memory.regions());
  bits_.assign(static_cast<size_t>(end) / kPageBytes, false);
  for (off_t at = 0; at < end;) {
    const off_t data = lseek(memory.file(), at, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    const off_t hole = data < 0 ? -1 : lseek(memory.file(), data, SEEK_HOLE);
    if (hole < 0) return;
    for (off_t o = data; o < hole; o += kPageBytes) bits_[static_cast<size_t>(o) / kPageBytes] = true;
    at = hole;
  }
  known_ = true;
}

} // namespace testvmm
