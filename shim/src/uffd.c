#include "uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "say.h"

// Newer than the headers of Debian 12.
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14)
#endif

/** Without these a page that is missing reads as zeros. */
#define NEEDED_FEATURES UFFD_FEATURE_MISSING_SHMEM
/** Balloon; which thread waits; pages that will never come; RAM of 2 MiB pages. */
#define WANTED_FEATURES                                                                                                \
  (UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_POISON | UFFD_FEATURE_MISSING_HUGETLBFS)

static int openOne(void) {
  const int flags = O_CLOEXEC | O_NONBLOCK;
  int uffd = (int)syscall(SYS_userfaultfd, flags);
  if (uffd >= 0) return uffd;
  const int callError = errno;
  // Without CAP_SYS_PTRACE the device, whose file mode says who may, still gives one that sees the kernel's faults.
  const int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
  if (device >= 0) {
    uffd = ioctl(device, USERFAULTFD_IOC_NEW, flags);
    const int deviceError = errno;
    close(device);
    errno = deviceError;
    if (uffd >= 0) return uffd;
  }
  refuse("no userfaultfd for the guest's RAM: userfaultfd(2): %s, /dev/userfaultfd: %s. Give this user read and write access to "
         "/dev/userfaultfd (with libvirt also in cgroup_device_acl), or give QEMU CAP_SYS_PTRACE, or set "
         "vm.unprivileged_userfaultfd=1",
         strerror(callError), strerror(errno));
}

/** The handshake is made once a descriptor, so what there is is asked of another. */
static uint64_t offeredFeatures(void) {
  const int uffd = openOne();
  struct uffdio_api api = {.api = UFFD_API};
  if (ioctl(uffd, UFFDIO_API, &api) != 0) refuse("UFFDIO_API: %s: this kernel's userfaultfd is of another kind", strerror(errno));
  close(uffd);
  return api.features;
}

int openUffd(void) {
  const uint64_t offered = offeredFeatures();
  if ((offered & NEEDED_FEATURES) != NEEDED_FEATURES)
    refuse("this kernel's userfaultfd cannot watch shared memory (features %#llx): Linux 4.11 or later is needed",
           (unsigned long long)offered);
  const int uffd = openOne();
  struct uffdio_api api = {.api = UFFD_API, .features = (NEEDED_FEATURES | WANTED_FEATURES) & offered};
  if (ioctl(uffd, UFFDIO_API, &api) != 0)
    refuse("UFFDIO_API with features %#llx: %s", (unsigned long long)api.features, strerror(errno));
  return uffd;
}

void registerMissing(int uffd, uintptr_t address, size_t bytes, const char *name) {
  struct uffdio_register range = {.range = {.start = address, .len = bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
  if (ioctl(uffd, UFFDIO_REGISTER, &range) == 0) return;
  if (errno == EINVAL)
    refuse("%s cannot be watched (UFFDIO_REGISTER: EINVAL): guest RAM has to be a file on tmpfs or hugetlbfs, or a memfd", name);
  refuse("%s cannot be watched: UFFDIO_REGISTER: %s", name, strerror(errno));
}

void wakeAll(int uffd, uintptr_t address, size_t bytes) {
  struct uffdio_range range = {.start = address, .len = bytes};
  // It fails only for a range that is gone, and then nobody waits there.
  (void)ioctl(uffd, UFFDIO_WAKE, &range);
}
