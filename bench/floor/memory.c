#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

static int open_uffd(uint64_t features) {
  const int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && errno == EPERM)
    fail_because("userfaultfd", "not permitted: run as root, or set vm.unprivileged_userfaultfd to 1");
  if (fd < 0) fail("userfaultfd");
  struct uffdio_api api = {.api = UFFD_API, .features = features};
  if (ioctl(fd, UFFDIO_API, &api) != 0) fail("UFFDIO_API (this kernel lacks faults on shared memory)");
  return fd;
}

struct memory memory_make(size_t pages, uint64_t mode) {
  struct memory memory = {.pages = pages, .file = memfd_create("bench", MFD_CLOEXEC), .uffd = -1};
  const size_t size = pages * PAGE;
  if (memory.file < 0 || ftruncate(memory.file, (off_t)size) != 0) fail("memfd");
  memory.at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory.file, 0);
  if (memory.at == MAP_FAILED) fail("mmap");
  /* A huge page would bring the neighbours of a page that was touched. */
  if (madvise(memory.at, size, MADV_NOHUGEPAGE) != 0 && errno != EINVAL) fail("MADV_NOHUGEPAGE");
  if (mode == 0) return memory;
  memory.uffd = open_uffd((mode & UFFDIO_REGISTER_MODE_MISSING ? UFFD_FEATURE_MISSING_SHMEM : 0) |
                          (mode & UFFDIO_REGISTER_MODE_MINOR ? UFFD_FEATURE_MINOR_SHMEM : 0) | UFFD_FEATURE_THREAD_ID);
  struct uffdio_register range = {.range = {.start = (uintptr_t)memory.at, .len = size}, .mode = mode};
  if (ioctl(memory.uffd, UFFDIO_REGISTER, &range) != 0) fail("UFFDIO_REGISTER");
  return memory;
}

struct stretch {
  volatile uint8_t *at;
  size_t pages;
};

static void *touch_stretch(void *argument) {
  const struct stretch *stretch = argument;
  for (size_t page = 0; page < stretch->pages; page++) stretch->at[page * PAGE] = 0;
  return NULL;
}

void memory_warm(const struct memory *memory, size_t pages) {
  const size_t size = pages * PAGE;
  /* Another mapping: the one that is registered would wait for somebody to fill it. */
  uint8_t *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memory->file, 0);
  if (at == MAP_FAILED) fail("mmap");
  enum { WARMERS = 2 };
  pthread_t threads[WARMERS];
  struct stretch stretches[WARMERS];
  const size_t each = pages / WARMERS;
  for (size_t i = 0; i < WARMERS; i++) {
    stretches[i] = (struct stretch){.at = at + i * each * PAGE, .pages = i + 1 < WARMERS ? each : pages - i * each};
    errno = pthread_create(&threads[i], NULL, touch_stretch, &stretches[i]);
    if (errno != 0) fail("pthread_create");
  }
  for (size_t i = 0; i < WARMERS; i++) pthread_join(threads[i], NULL);
  munmap(at, size);
  if (fallocate(memory->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)size) != 0) fail("FALLOC_FL_PUNCH_HOLE");
}

void memory_free(struct memory *memory) {
  munmap(memory->at, memory->pages * PAGE);
  close(memory->file);
  if (memory->uffd >= 0) close(memory->uffd);
}

void memory_copy(const struct memory *memory, size_t first_page, const void *bytes, size_t page_count) {
  const uintptr_t at = (uintptr_t)memory->at + first_page * PAGE;
  struct uffdio_copy copy = {.dst = at, .src = (uintptr_t)bytes, .len = page_count * PAGE};
  if (ioctl(memory->uffd, UFFDIO_COPY, &copy) == 0) return;
  if (errno != EEXIST || page_count != 1) fail("UFFDIO_COPY");
  struct uffdio_range range = {.start = at, .len = PAGE};
  if (ioctl(memory->uffd, UFFDIO_WAKE, &range) != 0) fail("UFFDIO_WAKE");
}
