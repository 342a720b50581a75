#include "guest-memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"

/* Younger than some headers. */
struct create_guest_memfd {
  uint64_t size, flags, reserved[6];
};
#define CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct create_guest_memfd)
enum { FLAG_MMAP = 1, FLAG_INIT_SHARED = 2, FLAG_WRITE = 8 };

static int create(const struct guest_memfd *guest, size_t size) {
  struct create_guest_memfd how = {.size = size, .flags = guest->flags};
  return ioctl(guest->vm, CREATE_GUEST_MEMFD, &how);
}

/* The text is kept for the rest of the program: each reason is asked for once. */
static const char *reason(const char *what) {
  static char texts[GUEST_CALLS][96];
  static unsigned next;
  char *text = texts[next++ % GUEST_CALLS];
  snprintf(text, sizeof texts[0], "%s: %s", what, strerror(errno));
  return text;
}

static void lacks_all(struct guest_memfd *guest, const char *why) {
  for (enum guest_call call = GUEST_COPY; call < GUEST_CALLS; call++) guest->lacks[call] = why;
}

/* No feature is asked for: which one a kernel would want for this kind of memory is not settled, and the calls work without. */
static int open_uffd(void) {
  const int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
  struct uffdio_api api = {.api = UFFD_API};
  if (fd < 0 || ioctl(fd, UFFDIO_API, &api) == 0) return fd;
  close(fd);
  return -1;
}

static int trap(int uffd, const void *at, size_t size) {
  struct uffdio_register range = {
      .range = {.start = (uintptr_t)at, .len = size},
      .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
  };
  return ioctl(uffd, UFFDIO_REGISTER, &range);
}

static void *map(int file, size_t size) { return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0); }

static const char *why_no_trap(const void *at) {
  const int uffd = open_uffd();
  if (uffd < 0) return reason("userfaultfd");
  const char *why = trap(uffd, at, PAGE) == 0 ? NULL : reason("UFFDIO_REGISTER(MISSING | MINOR) of a guest_memfd mapping");
  close(uffd);
  return why;
}

static void try_calls(struct guest_memfd *guest, int file) {
  void *at = map(file, PAGE);
  if (at == MAP_FAILED) {
    guest->lacks[GUEST_MEMCPY] = guest->lacks[GUEST_COPY] = reason("mmap of a guest_memfd");
  } else {
    guest->lacks[GUEST_COPY] = why_no_trap(at);
    munmap(at, PAGE);
  }
  static const uint8_t page[PAGE];
  if (pwrite(file, page, PAGE, 0) != PAGE) guest->lacks[GUEST_WRITE] = reason("write() to a guest_memfd");
  guest->lacks[GUEST_WRITE_CONTINUE] = guest->lacks[GUEST_WRITE] != NULL ? guest->lacks[GUEST_WRITE] : guest->lacks[GUEST_COPY];
}

struct guest_memfd guest_memfd_probe(void) {
  struct guest_memfd guest = {.vm = -1};
  const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) {
    lacks_all(&guest, reason("/dev/kvm"));
    return guest;
  }
  guest.vm = ioctl(kvm, KVM_CREATE_VM, 0);
  close(kvm);
  if (guest.vm < 0) {
    lacks_all(&guest, reason("KVM_CREATE_VM"));
    return guest;
  }
  /* A kernel that wants to be told that it will be written to takes the flag, and one that knows none refuses it. */
  guest.flags = FLAG_MMAP | FLAG_INIT_SHARED | FLAG_WRITE;
  int file = create(&guest, PAGE);
  if (file < 0) {
    guest.flags = FLAG_MMAP | FLAG_INIT_SHARED;
    file = create(&guest, PAGE);
  }
  if (file < 0) {
    lacks_all(&guest, reason("KVM_CREATE_GUEST_MEMFD with MMAP and INIT_SHARED"));
    return guest;
  }
  try_calls(&guest, file);
  close(file);
  return guest;
}

static void copy_piece(int uffd, const uint8_t *at, const uint8_t *source, size_t piece) {
  struct uffdio_copy copy = {.dst = (uintptr_t)at, .src = (uintptr_t)source, .len = piece};
  if (ioctl(uffd, UFFDIO_COPY, &copy) != 0) fail("UFFDIO_COPY to a guest_memfd");
}

static void write_piece(int file, const uint8_t *source, size_t offset, size_t piece) {
  if (pwrite(file, source, piece, (off_t)offset) != (ssize_t)piece) fail("write() to a guest_memfd");
}

static void continue_piece(int uffd, const uint8_t *at, size_t piece) {
  struct uffdio_continue range = {.range = {.start = (uintptr_t)at, .len = piece}};
  if (ioctl(uffd, UFFDIO_CONTINUE, &range) != 0) fail("UFFDIO_CONTINUE on a guest_memfd");
}

double guest_memfd_ms(const struct guest_memfd *guest, enum guest_call call, const uint8_t *source, size_t size, size_t piece) {
  const int file = create(guest, size);
  if (file < 0) fail("KVM_CREATE_GUEST_MEMFD");
  uint8_t *at = NULL;
  int uffd = -1;
  if (call != GUEST_WRITE) {
    at = map(file, size);
    if (at == MAP_FAILED) fail("mmap of a guest_memfd");
  }
  if (call == GUEST_COPY || call == GUEST_WRITE_CONTINUE) {
    uffd = open_uffd();
    if (uffd < 0 || trap(uffd, at, size) != 0) fail("userfaultfd on a guest_memfd");
  }
  const int64_t begin = now_ns();
  for (size_t offset = 0; offset < size; offset += piece) {
    switch (call) {
      case GUEST_MEMCPY:
        memcpy(at + offset, source + offset, piece);
        break;
      case GUEST_COPY:
        copy_piece(uffd, at + offset, source + offset, piece);
        break;
      default:
        write_piece(file, source + offset, offset, piece);
        if (call == GUEST_WRITE_CONTINUE) continue_piece(uffd, at + offset, piece);
    }
  }
  const double ms = (double)(now_ns() - begin) / 1e6;
  if (at != NULL) munmap(at, size);
  if (uffd >= 0) close(uffd);
  close(file);
  return ms;
}
