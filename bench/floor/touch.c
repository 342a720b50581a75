#include "touch.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common.h"

struct shared {
  const struct memory *memory;
  const struct walk *walk;
  unsigned long first;
  atomic_ulong taken;
  int64_t *stalls_ns; /* by the place in the order, so no two threads write to one */
  pthread_barrier_t start;
};

static unsigned long page_at(const struct memory *memory, unsigned long place) {
  const unsigned long half = memory->pages / 2;
  /* An odd stride visits every page of a power of two once; this one is about 0.618 of it, the most even spread there is. */
  const unsigned long stride = (unsigned long)((double)half * 0.6180339887) | 1;
  return half + ((place * stride) & (half - 1));
}

void check_page(unsigned long page, uint64_t found) {
  if (found == page_word(page)) return;
  char why[160];
  snprintf(why, sizeof why, "page %lu begins with %016lx, expected %016lx", page, (unsigned long)found,
           (unsigned long)page_word(page));
  fail_because("WRONG PAGE", why);
}

/* Busy, as a guest that computes: a sleep would measure how long an idle core takes to wake up. */
static void compute(unsigned long gap_us) {
  const int64_t until = now_ns() + (int64_t)gap_us * 1000;
  while (now_ns() < until) __builtin_ia32_pause();
}

static void *touch(void *argument) {
  struct shared *s = argument;
  pthread_barrier_wait(&s->start);
  for (;;) {
    const unsigned long i = atomic_fetch_add(&s->taken, 1);
    if (i >= s->walk->touches) return NULL;
    const unsigned long page = page_at(s->memory, s->first + i);
    const volatile uint64_t *at = (const volatile uint64_t *)(s->memory->at + page * PAGE);
    if (s->walk->gap_us > 0) compute(s->walk->gap_us);
    const int64_t begin = now_ns();
    const uint64_t found = *at;
    s->stalls_ns[i] = now_ns() - begin;
    check_page(page, found);
  }
}

static int compare(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

void walk_run(const struct memory *memory, const struct walk *walk, unsigned long *next) {
  if (*next + walk->touches > memory->pages / 2) fail_because(walk->name, "more touches than pages in the upper half of memory");
  struct shared s = {.memory = memory, .walk = walk, .first = *next};
  s.stalls_ns = calloc(walk->touches, sizeof *s.stalls_ns);
  if (s.stalls_ns == NULL) fail("calloc");
  pthread_barrier_init(&s.start, NULL, (unsigned)walk->threads + 1);
  pthread_t threads[MAX_THREADS];
  for (unsigned long i = 0; i < walk->threads; i++) {
    errno = pthread_create(&threads[i], NULL, touch, &s);
    if (errno != 0) fail("pthread_create");
  }
  pthread_barrier_wait(&s.start);
  const int64_t begin = now_ns();
  for (unsigned long i = 0; i < walk->threads; i++) pthread_join(threads[i], NULL);
  const double seconds = (double)(now_ns() - begin) / 1e9;
  *next += walk->touches;

  qsort(s.stalls_ns, walk->touches, sizeof *s.stalls_ns, compare);
  /* Nearest rank: a stall that really was, never one between two. */
  const double p50 = (double)s.stalls_ns[(walk->touches - 1) * 50 / 100] / 1e3;
  const double p99 = (double)s.stalls_ns[(walk->touches - 1) * 99 / 100] / 1e3;
  const double longest = (double)s.stalls_ns[walk->touches - 1] / 1e3;
  dprintf(STDOUT_FILENO,
          "{\"event\":\"walked\",\"name\":\"%s\",\"touches\":%lu,\"p50Us\":%.2f,\"p99Us\":%.2f,\"maxUs\":%.2f,"
          "\"faultsPerSecond\":%.1f}\n",
          walk->name, walk->touches, p50, p99, longest, (double)walk->touches / seconds);
  pthread_barrier_destroy(&s.start);
  free(s.stalls_ns);
}

void verify_file(const struct memory *memory) {
  for (unsigned long page = 0; page < memory->pages; page++) {
    uint64_t found = 0;
    if (pread(memory->file, &found, sizeof found, (off_t)(page * PAGE)) != sizeof found) fail("pread of the memory file");
    check_page(page, found);
  }
}
