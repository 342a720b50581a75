// What write(), userfaultfd and KVM_CREATE_GUEST_MEMFD refuse, and by which errno.
#include "checks.h"
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <sys/syscall.h>

enum { PAGES = 8 };
static char buffer[PAGES * PAGE_BYTES] __attribute__((aligned(PAGE_BYTES)));

static off_t at(u64 page) { return (off_t)((ERROR_PAGE + page) * PAGE_BYTES); }
static char *source(u64 page) { return buffer + page * PAGE_BYTES; }
static long put(u64 pages, u64 page) { return pwrite(gmem, source(page), pages * PAGE_BYTES, at(page)); }

static void check_sources(void) {
  void *volatile nowhere = (void *)8;
  expect(pwrite(gmem, nowhere, PAGE_BYTES, at(4)), 0, EFAULT, "a source that cannot be read: EFAULT");
  expect(put(1, 4), PAGE_BYTES, 0, "which leaves the page absent");
  char *half = mmap(NULL, 2 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memcpy(half, source(5), PAGE_BYTES);
  munmap(half + PAGE_BYTES, PAGE_BYTES);
  expect(pwrite(gmem, half, 2 * PAGE_BYTES, at(5)), PAGE_BYTES, 0, "a source that ends too early: short");
  munmap(half, PAGE_BYTES);

  // Faults in the middle of a write go to the thread that reads the userfaultfd.
  memset(&counts, 0, sizeof counts);
  expect(pwrite(gmem, ram + at(21), PAGE_BYTES, at(20)), PAGE_BYTES, 0, "a source that is an absent page of the same file");
  settle();
  check(counts.missing == 1 && counts.copied == 1, "is fetched by an event");
  check(memcmp(ram + at(20), ram + at(21), PAGE_BYTES) == 0, "and copied");
  expect(pwrite(gmem, ram + at(22), PAGE_BYTES, at(22)), 0, EEXIST, "a page that is its own source: EEXIST, for it was fetched");
}

void check_write(void) {
  section("write()");
  for (u64 page = 0; page < PAGES; page++) pattern(ERROR_PAGE + page, source(page));
  expect(put(1, 2), PAGE_BYTES, 0, "fills an absent page");
  expect(put(1, 2), 0, EEXIST, "a page that is there: EEXIST");
  expect(put(4, 0), 2 * PAGE_BYTES, 0, "a page that is there, further on: short");
  expect(pwrite(gmem, buffer, PAGE_BYTES, at(0) + 100), 0, EINVAL, "an offset within a page: EINVAL");
  expect(pwrite(gmem, buffer, 100, at(4)), 0, EINVAL, "a part of a page: EINVAL");
  expect(pwrite(gmem, buffer, 0, at(4)), 0, 0, "nothing: 0");
  expect(pwrite(gmem, buffer, PAGE_BYTES, RAM_BYTES), 0, ENOSPC, "past the end: ENOSPC");
  expect(pwrite(gmem, buffer, 2 * PAGE_BYTES, RAM_BYTES - PAGE_BYTES), PAGE_BYTES, 0, "across the end: short");
  check_sources();
  expect(lseek(gmem, at(6), SEEK_SET), at(6), 0, "lseek() moves the file's position");
  expect(write(gmem, source(6), 2 * PAGE_BYTES), 2 * PAGE_BYTES, 0, "write() fills from there");
  expect(lseek(gmem, 0, SEEK_CUR), at(8), 0, "and moves it on");
  expect(pread(gmem, buffer, PAGE_BYTES, at(0)), 0, ESPIPE, "pread(): ESPIPE");
  expect(read(gmem, buffer, PAGE_BYTES), 0, EINVAL, "read(): EINVAL");

  memset(&counts, 0, sizeof counts);
  const long third = put(1, 3);
  int wrong = 0;
  for (u64 page = 0; page < PAGES; page++) wrong += memcmp(ram + at(page), source(page), PAGE_BYTES) != 0;
  settle();
  check(third == PAGE_BYTES && wrong == 0, "what was written is what a mapping shows");
  check(counts.minor == PAGES && counts.missing == 0, "and is a minor fault there");
}

static long copy_to(char *address) {
  struct uffdio_copy request = {.dst = (u64)address, .src = (u64)buffer, .len = PAGE_BYTES};
  return ioctl(uffd, UFFDIO_COPY, &request);
}

static void check_modes(void) {
  const u64 missing = UFFDIO_REGISTER_MODE_MISSING, minor = UFFDIO_REGISTER_MODE_MINOR, wp = UFFDIO_REGISTER_MODE_WP;
  char *other = map(gmem, RAM_BYTES);
  int fd = new_uffd(0);
  expect(register_range(fd, other, RAM_BYTES, wp), 0, EINVAL, "write-protection is refused");
  expect(register_range(fd, other, RAM_BYTES, missing | wp), 0, EINVAL, "beside MISSING too");
  expect(register_range(fd, other, RAM_BYTES, missing), 0, 0, "MISSING alone");
  expect(register_range(fd, other, RAM_BYTES, minor), 0, 0, "MINOR alone");
  check(*(volatile u64 *)(other + RAM_BYTES - 64 * PAGE_BYTES) == 0, "which sees no hole: the kernel fills it with zeros");
  close(fd);
  munmap(other, RAM_BYTES);

  const int private = create_gmem(BLOCK_BYTES, GMEM_MMAP);
  char *mapped = map(private, BLOCK_BYTES);
  fd = new_uffd(0);
  expect(register_range(fd, mapped, BLOCK_BYTES, missing), 0, EINVAL, "a guest_memfd without INIT_SHARED is refused");
  close(fd);
  munmap(mapped, BLOCK_BYTES);
  close(private);
}

void check_userfaultfd(void) {
  section("userfaultfd");
  expect(copy_to(ram + at(20)), 0, EEXIST, "UFFDIO_COPY to a page that is mapped: EEXIST");
  if (pwrite(gmem, buffer, PAGE_BYTES, at(23)) != PAGE_BYTES) die("pwrite");
  expect(copy_to(ram + at(23)), 0, EEXIST, "UFFDIO_COPY to a page that was written: EEXIST");
  struct uffdio_continue request = {.range = {(u64)(ram + at(24)), PAGE_BYTES}};
  expect(ioctl(uffd, UFFDIO_CONTINUE, &request), 0, EFAULT, "UFFDIO_CONTINUE of an absent page: EFAULT");
  char *across = mmap(NULL, 4 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, gmem, RAM_BYTES - 2 * PAGE_BYTES);
  if (across == MAP_FAILED) die("mmap");
  const u64 missing = UFFDIO_REGISTER_MODE_MISSING;
  expect(register_range(uffd, across, 4 * PAGE_BYTES, missing), 0, 0, "a mapping that goes on past the end");
  expect(copy_to(across + 2 * PAGE_BYTES), 0, EFAULT, "UFFDIO_COPY past the end: EFAULT");
  munmap(across, 4 * PAGE_BYTES);
  check_modes();
}

/** One write by aio. @returns what it said, negative: the errno */
static long aio_write(int fd) {
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, 1, &context) < 0) die("io_setup");
  struct iocb request = {.aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = (uint32_t)fd, .aio_nbytes = PAGE_BYTES};
  request.aio_buf = (u64)buffer;
  struct iocb *requests = &request;
  struct io_event event = {0};
  long result = syscall(SYS_io_submit, context, 1, &requests);
  if (result < 0) result = -errno;
  else if (syscall(SYS_io_getevents, context, 1, 1, &event, NULL) == 1) result = event.res;
  syscall(SYS_io_destroy, context);
  return result;
}

/** The same by io_uring, whose rings are read without a library: one request, one answer. */
static long uring_write(int fd) {
  struct io_uring_params params = {0};
  const int ring = (int)syscall(SYS_io_uring_setup, 1, &params);
  if (ring < 0) die("io_uring_setup");
  const int protection = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
  char *queues = mmap(NULL, PAGE_BYTES, protection, flags, ring, IORING_OFF_SQ_RING);
  char *answers = mmap(NULL, PAGE_BYTES, protection, flags, ring, IORING_OFF_CQ_RING);
  struct io_uring_sqe *request = mmap(NULL, PAGE_BYTES, protection, flags, ring, IORING_OFF_SQES);
  if (queues == MAP_FAILED || answers == MAP_FAILED || request == MAP_FAILED) die("io_uring's rings");
  *request = (struct io_uring_sqe){.opcode = IORING_OP_WRITE, .fd = fd, .addr = (u64)buffer, .len = PAGE_BYTES};
  *(uint32_t *)(queues + params.sq_off.array) = 0;
  __atomic_store_n((uint32_t *)(queues + params.sq_off.tail), 1, __ATOMIC_RELEASE);
  if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) die("io_uring_enter");
  const long result = ((struct io_uring_cqe *)(answers + params.cq_off.cqes))->res;
  munmap(queues, PAGE_BYTES);
  munmap(answers, PAGE_BYTES);
  munmap(request, PAGE_BYTES);
  close(ring);
  return result;
}

void check_flags(void) {
  section("flags of guest_memfd");
  check((ioctl(vm, KVM_CHECK_EXTENSION, CAP_GUEST_MEMFD_FLAGS) & GMEM_ALL) == GMEM_ALL, "KVM_CAP_GUEST_MEMFD_FLAGS names them");
  expect(create_gmem(BLOCK_BYTES, GMEM_WRITE), 0, EINVAL, "WRITE without INIT_SHARED: EINVAL");
  expect(create_gmem(BLOCK_BYTES, GMEM_WRITE | GMEM_MMAP), 0, EINVAL, "with MMAP too");
  expect(create_gmem(BLOCK_BYTES, GMEM_UNUSED), 0, EINVAL, "1 << 2: EINVAL");
  const int plain = create_gmem(BLOCK_BYTES, GMEM_MMAP | GMEM_INIT_SHARED);
  expect(pwrite(plain, buffer, PAGE_BYTES, 0), 0, ESPIPE, "without WRITE, pwrite() as ever: ESPIPE");
  expect(write(plain, buffer, PAGE_BYTES), 0, EINVAL, "without WRITE, write() as ever: EINVAL");
  expect(lseek(plain, 0, SEEK_SET), 0, ESPIPE, "without WRITE, lseek() as ever: ESPIPE");
  check(aio_write(plain) < 0, "without WRITE, aio fails");
  check(uring_write(plain) < 0, "without WRITE, io_uring fails");
  close(plain);
  const int writable = create_gmem(BLOCK_BYTES, GMEM_ALL);
  check(uring_write(writable) == PAGE_BYTES, "with it, io_uring fills a page");
  check(aio_write(writable) == -EEXIST, "and aio finds it there: EEXIST");
  close(writable);
}
