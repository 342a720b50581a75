/*
 * Populating an empty memfd with bytes that are in memory already, by each of the calls that can: the comparison that the authors of the
 * guest_memfd series published for 512 MiB, on shared memory.
 *
 *   populate MIB
 *
 * One JSON line for each call and size. UFFDIO_COPY and write()+UFFDIO_CONTINUE leave page table entries, write() fills the page cache alone (which is
 * all that prefetch needs where only MISSING is registered).
 */
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"
#include "memory.h"

enum call { COPY, WRITE, WRITE_CONTINUE, CALLS };
static const char *const NAMES[CALLS] = {"copy", "write", "writeContinue"};
static const uint64_t MODES[CALLS] = {UFFDIO_REGISTER_MODE_MISSING, 0, UFFDIO_REGISTER_MODE_MINOR};

static void map_written(const struct memory *memory, size_t offset, size_t length) {
  struct uffdio_continue range = {.range = {.start = (uintptr_t)memory->at + offset, .len = length}};
  if (ioctl(memory->uffd, UFFDIO_CONTINUE, &range) != 0) fail("UFFDIO_CONTINUE");
}

static double populate_ms(enum call call, const uint8_t *source, size_t size, size_t piece) {
  struct memory memory = memory_make(size / PAGE, MODES[call]);
  const int64_t begin = now_ns();
  for (size_t offset = 0; offset < size; offset += piece) {
    if (call == COPY) {
      memory_copy(&memory, offset / PAGE, source + offset, piece / PAGE);
      continue;
    }
    write_exactly(memory.file, source + offset, piece);
    if (call == WRITE_CONTINUE) map_written(&memory, offset, piece);
  }
  const double ms = (double)(now_ns() - begin) / 1e6;
  memory_free(&memory);
  return ms;
}

int main(int argc, char **argv) {
  end_with_parent();
  const size_t mib = parse_count("MIB", argc == 2 ? argv[1] : NULL, 2, 1ul << 16);
  const size_t size = (mib & ~1ul) << 20;
  /* Its own bytes for every page: a small source would stay in the cache and flatter whoever copies in small pieces. */
  uint8_t *source = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (source == MAP_FAILED) fail("mmap");
  fill_random(source, 0, size / PAGE);
  static const size_t PIECES[] = {4 << 10, 64 << 10, 2 << 20};
  /* Once unheard: the first memfd of a size also pays for pages that the kernel has to find. */
  populate_ms(WRITE, source, size, PIECES[2]);
  for (size_t p = 0; p < sizeof PIECES / sizeof *PIECES; p++)
    for (enum call call = COPY; call < CALLS; call++)
      dprintf(STDOUT_FILENO, "{\"event\":\"populated\",\"call\":\"%s\",\"pieceBytes\":%zu,\"bytes\":%zu,\"ms\":%.2f}\n", NAMES[call],
              PIECES[p], size, populate_ms(call, source, size, PIECES[p]));
  return 0;
}
