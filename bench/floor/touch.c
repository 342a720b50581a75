#include "touch.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common.h"

/* Also where somebody else has the machine for all of the time. */
enum { LEAST_TOUCHES = 100 };

struct shared {
  const struct memory *memory;
  const struct walk *walk;
  int64_t end_ns;
  atomic_ulong place, passed, touched;
  int64_t *stalls_ns; /* by the number of the touch, so no two threads write to one; room for every page */
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

/* Asks the page cache, as a look at the page would be the touch. It takes below a microsecond, outside of the clock. */
static int is_there(const struct memory *memory, unsigned long page) {
  unsigned char state = 0;
  if (mincore(memory->at + page * PAGE, PAGE, &state) != 0) fail("mincore");
  return state & 1;
}

/* The next page of the order that is not there, or 0 (which is in the lower half) once there is none. */
static unsigned long next_page(struct shared *s) {
  for (;;) {
    const unsigned long place = atomic_fetch_add(&s->place, 1);
    if (place >= s->memory->pages / 2) return 0;
    const unsigned long page = page_at(s->memory, place);
    if (!is_there(s->memory, page)) return page;
    atomic_fetch_add(&s->passed, 1);
  }
}

static void *touch(void *argument) {
  struct shared *s = argument;
  const struct walk *walk = s->walk;
  pthread_barrier_wait(&s->start);
  for (;;) {
    if (walk->gap_us > 0) compute(walk->gap_us);
    if (now_ns() >= s->end_ns && atomic_load(&s->touched) >= LEAST_TOUCHES) return NULL;
    if (walk->bulk_is_over != NULL && walk->bulk_is_over()) return NULL;
    const unsigned long page = next_page(s);
    if (page == 0) return NULL;
    const volatile uint64_t *at = (const volatile uint64_t *)(s->memory->at + page * PAGE);
    const int64_t begin = now_ns();
    const uint64_t found = *at;
    s->stalls_ns[atomic_fetch_add(&s->touched, 1)] = now_ns() - begin;
    check_page(page, found);
  }
}

static int compare(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static double percentile_us(const int64_t *sorted_ns, unsigned long count, unsigned long per_mille) {
  return count == 0 ? 0 : (double)sorted_ns[(count - 1) * per_mille / 1000] / 1e3;
}

struct walked walk_run(const struct memory *memory, const struct walk *walk, unsigned long *next) {
  struct shared s = {.memory = memory, .walk = walk, .place = *next};
  s.stalls_ns = calloc(memory->pages / 2, sizeof *s.stalls_ns);
  if (s.stalls_ns == NULL) fail("calloc");
  pthread_barrier_init(&s.start, NULL, (unsigned)walk->threads + 1);
  pthread_t threads[MAX_THREADS];
  for (unsigned long i = 0; i < walk->threads; i++) {
    errno = pthread_create(&threads[i], NULL, touch, &s);
    if (errno != 0) fail("pthread_create");
  }
  const int64_t begin = now_ns();
  s.end_ns = begin + (int64_t)walk->ms * 1000000;
  pthread_barrier_wait(&s.start);
  for (unsigned long i = 0; i < walk->threads; i++) pthread_join(threads[i], NULL);
  struct walked walked = {.seconds = (double)(now_ns() - begin) / 1e9, .touches = s.touched, .passed = s.passed};
  *next = s.place;

  qsort(s.stalls_ns, walked.touches, sizeof *s.stalls_ns, compare);
  walked.p50_us = percentile_us(s.stalls_ns, walked.touches, 500);
  walked.p99_us = percentile_us(s.stalls_ns, walked.touches, 990);
  walked.p999_us = percentile_us(s.stalls_ns, walked.touches, 999);
  walked.longest_us = percentile_us(s.stalls_ns, walked.touches, 1000);
  pthread_barrier_destroy(&s.start);
  free(s.stalls_ns);
  return walked;
}

void verify_file(const struct memory *memory) {
  for (unsigned long page = 0; page < memory->pages; page++) {
    uint64_t found = 0;
    if (pread(memory->file, &found, sizeof found, (off_t)(page * PAGE)) != sizeof found) fail("pread of the memory file");
    check_page(page, found);
  }
}
