#define _GNU_SOURCE
#include "pattern.h"
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/** Between two looks at the clock and at `verify`. */
enum { BATCH_PAGES = 16 };

/** Each worker has a share of its own, so that no lock lies between it and its pages. */
struct worker {
  uint64_t index, first, count;
};

static uint64_t *pages, *zeros;
/** What version each page must have: elsewhere than the pages, and as far to travel as they. */
static uint32_t *versions;
static uint64_t zero_pages;

void *reserve(uint64_t bytes) {
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) die("mmap");
  return at;
}

static uint64_t *page_at(uint64_t number) { return pages + number * PAGE_WORDS; }

static bool is_right(uint64_t number) {
  return check_page(page_at(number), number, versions[number], options.pattern, "memory");
}

static bool is_zero(uint64_t number) {
  const uint64_t *page = zeros + number * PAGE_WORDS;
  for (uint64_t i = 0; i < PAGE_WORDS; i++)
    if (page[i] != 0) {
      say_wrong("zeros", number, i, 0, page[i]);
      return false;
    }
  return true;
}

static void look_through(const struct worker *w, uint64_t round) {
  uint64_t wrong = 0, looked = w->count;
  for (uint64_t i = 0; i < w->count; i++) wrong += !is_right(w->first + i);
  if (w->index == 0) {
    for (uint64_t i = 0; i < zero_pages; i++) wrong += !is_zero(i);
    looked += zero_pages;
  }
  atomic_fetch_add(&shared->round_pages, looked);
  atomic_fetch_add(&shared->round_wrong, wrong);
  atomic_store(&shared->workers[w->index].round, round);
}

static void *work(void *argument) {
  const struct worker *w = argument;
  struct worker_counters *counters = &shared->workers[w->index];
  uint64_t random = mix(w->index + 1), done = 0;
  const uint64_t started_ms = now_ms();
  for (;;) {
    for (int i = 0; i < BATCH_PAGES; i++) {
      const uint64_t number = w->first + (draw(&random) >> 8) % w->count;
      if (is_right(number)) atomic_fetch_add(&counters->verified, 1);
      fill_page(page_at(number), number, ++versions[number], options.pattern);
    }
    const uint64_t round = atomic_load(&shared->round);
    if (atomic_load(&counters->round) < round) look_through(w, round);
    pace(options.pages_per_s, started_ms, done += BATCH_PAGES);
  }
  return NULL;
}

void memory_workload(void) {
  static struct worker workers[MAX_WORKERS];
  const uint64_t count = (options.mem_mib << 20) / PAGE_BYTES;
  zero_pages = (options.zeros_mib << 20) / PAGE_BYTES;
  pages = reserve(count * PAGE_BYTES);
  versions = reserve(count * sizeof *versions);
  zeros = reserve(zero_pages * PAGE_BYTES + PAGE_BYTES);
  for (uint64_t i = 0; i < count; i++) fill_page(page_at(i), i, ++versions[i], options.pattern);
  // Written, and yet zeros: on the host they are data, not holes.
  for (uint64_t i = 0; i < zero_pages; i++) *(volatile uint64_t *)(zeros + i * PAGE_WORDS) = 0;
  say("{\"event\":\"filled\",\"pages\":%llu,\"zeroPages\":%llu,\"ms\":%llu}", (unsigned long long)count,
      (unsigned long long)zero_pages, (unsigned long long)now_ms());
  for (uint64_t i = 0; i < options.workers; i++) {
    const uint64_t first = count * i / options.workers, end = count * (i + 1) / options.workers;
    workers[i] = (struct worker){.index = i, .first = first, .count = end - first};
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, &workers[i]) != 0) die("pthread_create");
  }
  for (;;) pause();
}
