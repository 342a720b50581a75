#include "guest-memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"

/* Younger than some headers. */
struct create_guest_memfd {
  uint64_t size, flags, reserved[6];
};
#define CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, struct create_guest_memfd)
enum { CAP_GUEST_MEMFD_FLAGS = 244, FLAG_MMAP = 1, FLAG_INIT_SHARED = 2, FLAG_WRITE = 8 };

static int create(const struct guest_memfd *guest, size_t size) {
  struct create_guest_memfd how = {.size = size, .flags = guest->flags};
  return ioctl(guest->vm, CREATE_GUEST_MEMFD, &how);
}

/* The text is kept for the rest of the program: each reason is asked for once. */
static const char *reason(const char *what) {
  static char texts[4][96];
  static unsigned next;
  char *text = texts[next++ % 4];
  snprintf(text, sizeof texts[0], "%s: %s", what, strerror(errno));
  return text;
}

struct guest_memfd guest_memfd_probe(void) {
  struct guest_memfd guest = {.vm = -1};
  const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) {
    guest.no_memcpy = guest.no_write = reason("/dev/kvm");
    return guest;
  }
  guest.vm = ioctl(kvm, KVM_CREATE_VM, 0);
  close(kvm);
  if (guest.vm < 0) {
    guest.no_memcpy = guest.no_write = reason("KVM_CREATE_VM");
    return guest;
  }
  /* Where a kernel wants to be told that it will be written to, it offers the flag. */
  const int offered = ioctl(guest.vm, KVM_CHECK_EXTENSION, CAP_GUEST_MEMFD_FLAGS);
  guest.flags = FLAG_MMAP | FLAG_INIT_SHARED | (offered > 0 ? (uint64_t)offered & FLAG_WRITE : 0);
  const int file = create(&guest, PAGE);
  if (file < 0) {
    guest.no_memcpy = guest.no_write = reason("KVM_CREATE_GUEST_MEMFD with MMAP and INIT_SHARED");
    return guest;
  }
  void *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (at == MAP_FAILED) guest.no_memcpy = reason("mmap of a guest_memfd");
  else munmap(at, PAGE);
  static const uint8_t page[PAGE];
  if (pwrite(file, page, PAGE, 0) != PAGE) guest.no_write = reason("write() to a guest_memfd");
  close(file);
  return guest;
}

double guest_memfd_ms(const struct guest_memfd *guest, enum guest_call call, const uint8_t *source, size_t size, size_t piece) {
  const int file = create(guest, size);
  if (file < 0) fail("KVM_CREATE_GUEST_MEMFD");
  uint8_t *at = NULL;
  if (call == GUEST_MEMCPY) {
    at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) fail("mmap of a guest_memfd");
  }
  const int64_t begin = now_ns();
  for (size_t offset = 0; offset < size; offset += piece) {
    if (call == GUEST_MEMCPY) memcpy(at + offset, source + offset, piece);
    else if (pwrite(file, source + offset, piece, (off_t)offset) != (ssize_t)piece) fail("write() to a guest_memfd");
  }
  const double ms = (double)(now_ns() - begin) / 1e6;
  if (at != NULL) munmap(at, size);
  close(file);
  return ms;
}
