/*
 * A guest that goes through its memory once while prefetch brings it: how many pages it touches before the memory is whole, and when. How many of those
 * touches became a request on the network is what the agent counts.
 *
 *   roam PAGES SOCKET:VM sequential|random
 *
 * Begins with `ready`, ends with the last page or with `done`, then looks at every page. One JSON line: `touchedByMs[i]` is how many pages had been
 * touched i+1 ms after it began.
 */
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "filler.h"
#include "touch.h"

enum { MAX_MS = 60000 };

/*
 * Every page once. From first to last begins at a third of the way, as prefetch begins at the first page and would be ahead by luck. Random: Fisher and
 * Yates; page_word's mixing is the die, so every run has the same order.
 */
static uint32_t *make_order(size_t pages, const char *name) {
  const int random = strcmp(name, "random") == 0;
  if (!random && strcmp(name, "sequential") != 0) fail_because(name, "give sequential or random");
  uint32_t *order = calloc(pages, sizeof *order);
  if (order == NULL) fail("calloc");
  for (size_t i = 0; i < pages; i++) order[i] = (uint32_t)((i + pages / 3) % pages);
  for (size_t i = pages - 1; random && i > 0; i--) {
    const size_t j = (page_word(i) >> 1) % (i + 1);
    const uint32_t page = order[i];
    order[i] = order[j];
    order[j] = page;
  }
  return order;
}

/* All of it, as a guest that has come for what is in there. */
static uint64_t read_page(const struct memory *memory, uint32_t page) {
  const volatile uint64_t *words = (const volatile uint64_t *)(memory->at + (size_t)page * PAGE);
  const uint64_t first = words[0];
  for (size_t i = 1; i < PAGE / sizeof *words; i++) (void)words[i];
  return first;
}

int main(int argc, char **argv) {
  end_with_parent();
  if (argc != 4) fail_because("usage", "roam PAGES SOCKET:VM sequential|random");
  const size_t pages = parse_count("PAGES", argv[1], 2, 1ul << 22);
  char *colon = strrchr(argv[2], ':');
  if (colon == NULL) fail_because(argv[2], "give SOCKET:VM");
  *colon = '\0';
  const uint32_t *order = make_order(pages, argv[3]);
  static uint32_t touched_by_ms[MAX_MS];
  const struct memory memory = memory_make(pages, UFFDIO_REGISTER_MODE_MISSING);
  agent_serve(&memory, argv[2], colon + 1);

  const int64_t begin = now_ns();
  size_t touched = 0, ms = 0;
  while (touched < pages && !agent_is_done()) {
    check_page(order[touched], read_page(&memory, order[touched]));
    touched++;
    ms = (size_t)((now_ns() - begin) / 1000000);
    if (ms >= MAX_MS) fail_because("roam", "not through in a minute");
    touched_by_ms[ms] = (uint32_t)touched;
  }
  agent_await_done();
  verify_file(&memory);
  printf("{\"event\":\"roamed\",\"touched\":%zu,\"touchedByMs\":[", touched);
  uint32_t so_far = 0;
  for (size_t i = 0; i <= ms; i++) {
    /* A millisecond in which nothing ended is one in which it waited. */
    if (touched_by_ms[i] > so_far) so_far = touched_by_ms[i];
    printf("%s%u", i == 0 ? "" : ",", so_far);
  }
  printf("]}\n");
  fflush(stdout);
  /* Not return: the listener may still be reading. */
  _exit(0);
}
