/*
 * Populating empty guest memory with bytes that are in memory already, by each of the calls that can: the comparison that the authors of the
 * guest_memfd series published for 512 MiB.
 *
 *   populate MIB PIECE_KIB ...
 *
 * One JSON line for each call and size of a piece, on memfd and on guest_memfd: UFFDIO_COPY and write()+UFFDIO_CONTINUE leave page table entries, write()
 * fills the page cache alone (which is all that prefetch needs where only MISSING is registered, and all that a vCPU of a guest_memfd needs). On guest_memfd
 * also memcpy() through a mapping. Which calls this kernel has there is found by doing it, and said in lines of their own.
 */
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"
#include "guest-memfd.h"
#include "memory.h"

enum call { COPY, WRITE, WRITE_CONTINUE, CALLS };
static const char *const NAMES[CALLS] = {"copy", "write", "writeContinue"};
static const char *const GUEST_NAMES[GUEST_CALLS] = {"guestCopy", "guestWrite", "guestWriteContinue", "guestMemcpy"};
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

static void say(const char *call, size_t piece, size_t size, double ms) {
  dprintf(STDOUT_FILENO, "{\"event\":\"populated\",\"call\":\"%s\",\"pieceBytes\":%zu,\"bytes\":%zu,\"ms\":%.2f}\n", call, piece, size, ms);
}

static void say_missing(const char *call, const char *why) {
  dprintf(STDOUT_FILENO, "{\"event\":\"missing\",\"call\":\"%s\",\"why\":\"%s\"}\n", call, why);
}

int main(int argc, char **argv) {
  end_with_parent();
  const size_t mib = parse_count("MIB", argc >= 3 ? argv[1] : NULL, 2, 1ul << 16);
  const size_t size = (mib & ~1ul) << 20;
  /* Its own bytes for every page: a small source would stay in the cache and flatter whoever copies in small pieces. */
  uint8_t *source = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (source == MAP_FAILED) fail("mmap");
  fill_random(source, 0, size / PAGE);
  const struct guest_memfd guest = guest_memfd_probe();
  /* Once unheard: the first file of a size also pays for pages that the kernel has to find. */
  populate_ms(WRITE, source, size, 2 << 20);
  if (guest.lacks[GUEST_MEMCPY] == NULL) guest_memfd_ms(&guest, GUEST_MEMCPY, source, size, 2 << 20);
  for (enum guest_call call = GUEST_COPY; call < GUEST_CALLS; call++)
    if (guest.lacks[call] != NULL) say_missing(GUEST_NAMES[call], guest.lacks[call]);
  for (int i = 2; i < argc; i++) {
    const size_t piece = parse_count("PIECE_KIB", argv[i], 4, 2048) << 10;
    if (size % piece != 0) fail_because(argv[i], "must be a power of two");
    for (enum call call = COPY; call < CALLS; call++) say(NAMES[call], piece, size, populate_ms(call, source, size, piece));
    for (enum guest_call call = GUEST_COPY; call < GUEST_CALLS; call++)
      if (guest.lacks[call] == NULL) say(GUEST_NAMES[call], piece, size, guest_memfd_ms(&guest, call, source, size, piece));
  }
  return 0;
}
