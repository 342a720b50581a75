#include "content.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "text.h"

enum {
  BLOCK = 4096, /* pages: the law of the zero runs begins anew with each, so that blocks can be made in any order */
  MOST_ZERO_RUN = 256,
  MOST_DATA_RUN = 44,
  MAX_WORKERS = 16,
  VERIFY_PAGES = 64,
};

enum content parse_content(const char *text) {
  static const char *const NAMES[] = {"random", "text", "zeros", "holes"};
  for (int i = 0; i < 4; i++)
    if (strcmp(text, NAMES[i]) == 0) return (enum content)i;
  fail_because(text, "no such content; there are random, text, zeros and holes");
}

static int has_zeros(enum content content) { return content == CONTENT_ZEROS || content == CONTENT_HOLES; }

/* Log-uniform: as many runs of 1 to 2 pages as of 128 to 256. */
static unsigned run_length(uint64_t random, unsigned most) {
  const double share = (double)(random >> 11) / (double)(UINT64_C(1) << 53);
  return (unsigned)exp(share * log((double)most + 1));
}

/* Which pages of a block are zero. */
static void lay_out(uint64_t block, uint8_t *zero) {
  uint64_t random = block;
  int is_zero = (int)(page_word(block) >> 63);
  for (unsigned page = 0; page < BLOCK; is_zero = !is_zero) {
    random = page_word(random);
    const unsigned length = run_length(random, is_zero ? MOST_ZERO_RUN : MOST_DATA_RUN);
    const unsigned end = page + length < BLOCK ? page + length : BLOCK;
    for (; page < end; page++) zero[page] = (uint8_t)is_zero;
  }
}

/* The block that a thread is in. */
struct layout {
  enum content content;
  uint64_t block;
  uint8_t zero[BLOCK];
};

static struct layout begin_layout(enum content content) { return (struct layout){.content = content, .block = UINT64_MAX}; }

static int make_page(struct layout *layout, uint64_t page, uint8_t *out) {
  if (has_zeros(layout->content)) {
    if (layout->block != page / BLOCK) lay_out(layout->block = page / BLOCK, layout->zero);
    if (layout->zero[page % BLOCK]) return 0;
  }
  if (layout->content == CONTENT_TEXT) text_page(page, out);
  else fill_random(out, page, 1);
  return 1;
}

int content_page(enum content content, uint64_t page, uint8_t *out) {
  static _Thread_local struct layout layout = {.block = UINT64_MAX};
  if (layout.content != content) layout = begin_layout(content);
  return make_page(&layout, page, out);
}

/* Blocks of one piece of work, taken by whichever thread is free. */
struct work {
  enum content content;
  uint8_t *at; /* of content_fill */
  int file;    /* of content_verify */
  uint64_t first_page, page_count;
  atomic_ulong taken;
};

static void *fill_blocks(void *argument) {
  struct work *work = argument;
  struct layout layout = begin_layout(work->content);
  for (uint64_t first; (first = atomic_fetch_add(&work->taken, 1) * BLOCK) < work->page_count;)
    for (uint64_t page = first; page < first + BLOCK && page < work->page_count; page++) {
      uint8_t *at = work->at + page * PAGE;
      /* Zeros are written: the page is then there, and whoever wants to know that it is zero has to read it. */
      if (!make_page(&layout, page, at) && work->content == CONTENT_ZEROS) memset(at, 0, PAGE);
    }
  return NULL;
}

static void check(struct layout *layout, uint64_t page, uint64_t place, const uint8_t *found) {
  uint8_t expected[PAGE];
  if (!make_page(layout, page, expected)) memset(expected, 0, PAGE);
  if (memcmp(found, expected, PAGE) == 0) return;
  size_t byte = 0;
  while (found[byte] == expected[byte]) byte++;
  char why[160];
  snprintf(why, sizeof why, "page %lu has %02x at byte %zu, expected %02x", place, found[byte], byte, expected[byte]);
  fail_because("WRONG PAGE", why);
}

static void *verify_blocks(void *argument) {
  struct work *work = argument;
  struct layout layout = begin_layout(work->content);
  uint8_t found[VERIFY_PAGES * PAGE];
  for (uint64_t first; (first = atomic_fetch_add(&work->taken, 1) * VERIFY_PAGES) < work->page_count;) {
    const uint64_t count = work->page_count - first < VERIFY_PAGES ? work->page_count - first : VERIFY_PAGES;
    const ssize_t length = (ssize_t)(count * PAGE);
    if (pread(work->file, found, (size_t)length, (off_t)(first * PAGE)) != length) fail("pread of the memory file");
    for (uint64_t i = 0; i < count; i++) check(&layout, work->first_page + first + i, first + i, found + i * PAGE);
  }
  return NULL;
}

static void on_all_cpus(void *(*run)(void *), struct work *work) {
  if (work->content == CONTENT_TEXT) text_prepare();
  const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  const int count = cpus < 1 ? 1 : cpus > MAX_WORKERS ? MAX_WORKERS : (int)cpus;
  pthread_t threads[MAX_WORKERS];
  for (int i = 0; i < count; i++) {
    errno = pthread_create(&threads[i], NULL, run, work);
    if (errno != 0) fail("pthread_create");
  }
  for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

void content_fill(enum content content, uint8_t *at, uint64_t page_count) {
  struct work work = {.content = content, .at = at, .page_count = page_count};
  on_all_cpus(fill_blocks, &work);
}

void content_verify(enum content content, int file, uint64_t first_page, uint64_t page_count) {
  struct work work = {.content = content, .file = file, .first_page = first_page, .page_count = page_count};
  on_all_cpus(verify_blocks, &work);
}
