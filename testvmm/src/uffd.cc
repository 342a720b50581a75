#include "uffd.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <cerrno>

#include "failure.h"
#include "kvm_uapi.h"

namespace testvmm {
namespace {

Fd openUffd(bool userModeOnly) {
  const int flags = O_CLOEXEC | O_NONBLOCK;
  Fd fd(static_cast<int>(syscall(SYS_userfaultfd, flags | (userModeOnly ? static_cast<int>(kUffdUserModeOnly) : 0))));
  if (fd) return fd;
  // Without CAP_SYS_PTRACE (and vm.unprivileged_userfaultfd=0) the device, if permitted, still gives one that sees
  // kernel faults.
  const int error = errno;
  const Fd device(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (device) fd = Fd(ioctl(device.get(), kDevUserfaultfdNew, flags));
  if (fd) return fd;
  errno = error;
  failErrno("userfaultfd (needs CAP_SYS_PTRACE, access to /dev/userfaultfd, or vm.unprivileged_userfaultfd=1)");
}

/** The handshake can be made once a descriptor, so what is there is asked of another. */
uint64_t offeredFeatures(bool userModeOnly) {
  const Fd fd = openUffd(userModeOnly);
  uffdio_api api{};
  api.api = UFFD_API;
  if (ioctl(fd.get(), UFFDIO_API, &api) != 0) failErrno("UFFDIO_API");
  return api.features;
}

struct Feature {
  uint64_t bit;
  const char *name;
};

uint64_t wantedFeatures(const GuestMemory &memory, const UffdOptions &options) {
  std::vector<Feature> wanted;
  const bool huge = memory.pageBytes() != kPageBytes, shared = memory.kind() != MemoryKind::anon;
  if (options.threadId) wanted.push_back({UFFD_FEATURE_THREAD_ID, "THREAD_ID"});
  if (options.eventRemove) wanted.push_back({UFFD_FEATURE_EVENT_REMOVE, "EVENT_REMOVE"});
  if (huge) wanted.push_back({UFFD_FEATURE_MISSING_HUGETLBFS, "MISSING_HUGETLBFS"});
  if (shared && !huge) wanted.push_back({UFFD_FEATURE_MISSING_SHMEM, "MISSING_SHMEM"});
  if (options.minor)
    wanted.push_back(huge ? Feature{UFFD_FEATURE_MINOR_HUGETLBFS, "MINOR_HUGETLBFS"}
                          : Feature{UFFD_FEATURE_MINOR_SHMEM, "MINOR_SHMEM"});
  const uint64_t offered = offeredFeatures(options.userModeOnly);
  uint64_t features = offered & kUffdFeaturePoison; // lets the agent poison what it cannot fetch
  for (const Feature &feature : wanted) {
    if ((offered & feature.bit) == 0)
      fail("this kernel's userfaultfd has no %s (offered: %#lx)", feature.name, offered);
    features |= feature.bit;
  }
  return features;
}

} // namespace

Fd registerMemory(const GuestMemory &memory, const UffdOptions &options) {
  if (options.minor && memory.kind() == MemoryKind::anon)
    fail("--register missing,minor: anonymous memory has no minor faults");
  Fd fd = openUffd(options.userModeOnly);
  uffdio_api api{};
  api.api = UFFD_API;
  const uint64_t features = wantedFeatures(memory, options);
  api.features = features;
  if (ioctl(fd.get(), UFFDIO_API, &api) != 0) failErrno("UFFDIO_API with features %#lx", features);
  for (size_t i = 0; i < memory.regions(); i++) {
    uffdio_register range{};
    range.range = {reinterpret_cast<uintptr_t>(memory.region(i)), memory.regionBytes()};
    range.mode = UFFDIO_REGISTER_MODE_MISSING | (options.minor ? UFFDIO_REGISTER_MODE_MINOR : 0);
    if (ioctl(fd.get(), UFFDIO_REGISTER, &range) == 0) continue;
    if (memory.kind() == MemoryKind::guestMemfd && errno == EINVAL)
      fail("--stage2 userfault: this kernel's userfaultfd takes no guest_memfd (UFFDIO_REGISTER: EINVAL); the kernel of "
           "`npm run lab` does");
    failErrno("UFFDIO_REGISTER of region %zu (%s)", i, nameOf(memory.kind()));
  }
  return fd;
}

} // namespace testvmm
