// What a page holds: its number, its version, and words that follow from both. A page that is lost, stale, torn or in the
// wrong place cannot look right: its version is remembered elsewhere.
#pragma once
#include "guest.h"

static inline uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

static inline uint64_t draw(uint64_t *x) {
  *x = *x * 6364136223846793005ull + 1442695040888963407ull;
  return *x ^ (*x >> 29);
}

/** Letters out of sixteen. */
static inline uint64_t letters(uint64_t v) { return (v & 0x0f0f0f0f0f0f0f0full) | 0x6060606060606060ull; }

struct words {
  uint64_t state, phrase, index;
  enum pattern pattern;
};

static inline struct words words_of(uint64_t page, uint64_t version, enum pattern pattern) {
  return (struct words){.state = mix(page * 0x9e3779b97f4a7c15ull + mix(version)), .pattern = pattern};
}

/** Random: nothing repeats, LZ4 finds nothing. Text: phrases of 32 letters, every other one with a fresh start; LZ4 shrinks it about three times. */
static inline uint64_t next_word(struct words *w) {
  if (w->pattern == PATTERN_RANDOM) return draw(&w->state);
  const uint64_t at = w->index++ & 3;
  if (at == 0) w->phrase = draw(&w->state) >> 32;
  if (at == 0 && (w->phrase & 16) != 0) return letters(draw(&w->state));
  return letters(mix((w->phrase & 15) * 4 + at));
}

static inline void fill_page(uint64_t *page, uint64_t number, uint64_t version, enum pattern pattern) {
  struct words w = words_of(number, version, pattern);
  page[0] = number;
  page[1] = version;
  for (int i = 2; i < PAGE_WORDS; i++) page[i] = next_word(&w);
}

/** @returns whether the page is what it must be; says where not */
static inline bool check_page(const uint64_t *page, uint64_t number, uint64_t version, enum pattern pattern,
                              const char *where) {
  struct words w = words_of(number, version, pattern);
  for (int i = 0; i < PAGE_WORDS; i++) {
    const uint64_t expected = i == 0 ? number : i == 1 ? version : next_word(&w);
    if (page[i] == expected) continue;
    say_wrong(where, number, (uint64_t)i, expected, page[i]);
    return false;
  }
  return true;
}
