// How long it takes to fill memory by each of the calls. No check but of what is there in the end: figures under emulation are
// ratios at best.
#include "checks.h"

enum { MIB = 64, BATCH_BYTES = 64 << 10 };
static const u64 BYTES = (u64)MIB << 20;

enum way { COPY, WRITE, WRITE_AND_CONTINUE, WAYS };

static void fill(enum way way, int fd, int faults, char *to, const char *from) {
  for (u64 at = 0; at < BYTES; at += BATCH_BYTES) {
    struct uffdio_copy copy = {.dst = (u64)to + at, .src = (u64)from + at, .len = BATCH_BYTES};
    struct uffdio_continue after = {.range = {(u64)to + at, BATCH_BYTES}};
    if (way == COPY && ioctl(faults, UFFDIO_COPY, &copy) < 0) die("UFFDIO_COPY");
    if (way != COPY && pwrite(fd, from + at, BATCH_BYTES, (off_t)at) != BATCH_BYTES) die("pwrite");
    if (way == WRITE_AND_CONTINUE && ioctl(faults, UFFDIO_CONTINUE, &after) < 0) die("UFFDIO_CONTINUE");
  }
}

static double measure(enum way way, bool guest_memfd, const char *from) {
  const int fd = guest_memfd ? create_gmem(BYTES, GMEM_ALL) : memfd_create("populate", 0), faults = new_uffd(0);
  if (fd < 0 || (!guest_memfd && ftruncate(fd, (off_t)BYTES) < 0)) die("memory");
  char *to = map(fd, BYTES);
  const u64 mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR;
  if (register_range(faults, to, BYTES, mode) < 0) die("UFFDIO_REGISTER");
  const double started = now_s();
  fill(way, fd, faults, to, from);
  const double ms = (now_s() - started) * 1e3;
  struct uffdio_continue all = {.range = {(u64)to, BYTES}};
  if (way == WRITE && ioctl(faults, UFFDIO_CONTINUE, &all) < 0) die("UFFDIO_CONTINUE");
  if (memcmp(to, from, BYTES) != 0) check(false, "what was filled is there");
  munmap(to, BYTES);
  close(faults);
  close(fd);
  return ms;
}

void measure_populate(void) {
  enum { ROUNDS = 3 };
  section("populate (emulated: ratios at best)");
  char *from = map(-1, BYTES);
  for (u64 page = 0; page < BYTES / PAGE_BYTES; page++) pattern(page, from + page * PAGE_BYTES);
  // The first round warms up and is not printed.
  for (int round = 0; round <= ROUNDS; round++)
    for (int guest_memfd = 1; guest_memfd >= 0; guest_memfd--) {
      double ms[WAYS];
      for (enum way way = COPY; way < WAYS; way++) ms[way] = measure(way, guest_memfd, from);
      if (round == 0) continue;
      printf("  %d MiB of %s, 64 KiB a call: UFFDIO_COPY %.0f ms, write() %.0f ms, write() + UFFDIO_CONTINUE %.0f ms\n", MIB,
             guest_memfd ? "guest_memfd" : "memfd", ms[COPY], ms[WRITE], ms[WRITE_AND_CONTINUE]);
    }
  check(true, "each call fills memory of either kind");
  munmap(from, BYTES);
}
