// What a page holds, and in which order a pass visits pages: pure functions, compiled into both the guest and its host,
// so that neither keeps a table. A page's words follow from (key, page number in the image, version); the version that
// it must have follows from how far its owner's pass has come.
#pragma once
#include "guest_context.h"

#define TESTVMM_INLINE [[gnu::always_inline]] inline

namespace testvmm {

/** Finalizer of splitmix64 (public domain): a bijection on 64 bits that spreads every input bit. */
TESTVMM_INLINE uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

/** The words of one page in one version, first to last. */
struct PageWords {
  uint64_t x, key, pattern, index = 0, phrase = 0;

  TESTVMM_INLINE PageWords(uint64_t theKey, uint64_t thePattern, uint64_t page, uint64_t version)
      : x(mix(theKey ^ mix(page * 0x9e3779b97f4a7c15ull + version))), key(theKey), pattern(thePattern) {
    // 80 % of (page, version) pairs of the zero-heavy pattern are all zeros; zero to zero is no change, so nothing is
    // missed.
    const bool zero = version == kNoVersion || (pattern == static_cast<uint64_t>(Pattern::zeroHeavy) && x % 5 != 0);
    if (zero) pattern = kNoVersion;
  }

  TESTVMM_INLINE uint64_t next() {
    if (pattern == kNoVersion) return 0;
    if (pattern == static_cast<uint64_t>(Pattern::text)) return nextOfText();
    return draw();
  }

private:
  /** 64-bit multiplicative generator (Knuth's constants): no 4 bytes repeat within a page, so LZ4 finds nothing. */
  TESTVMM_INLINE uint64_t draw() {
    x = x * 6364136223846793005ull + 1442695040888963407ull;
    return x ^ (x >> 29);
  }
  TESTVMM_INLINE static uint64_t letters(uint64_t v) { return (v & 0x0f0f0f0f0f0f0f0full) | 0x6060606060606060ull; }

  /** Phrases of 32 letters out of sixteen, the first 8 of every other one fresh: LZ4 shrinks it about three times. */
  TESTVMM_INLINE uint64_t nextOfText() {
    const uint64_t at = index++ & 3;
    if (at == 0) phrase = draw() >> 32;
    if (at == 0 && (phrase & 16) != 0) return letters(draw());
    return letters(mix(key + (phrase & 15) * 4 + at));
  }
};

/** The order of one pass: every number below 2^bits once; skip what is >= pages. Random: full-period LCG, then a bijective
 * scramble. Sequential: the same machine with constants that count. */
struct PassOrder {
  uint64_t mask, multiplier, increment, start, odd;
  unsigned shift;

  TESTVMM_INLINE PassOrder(uint64_t key, uint64_t worker, uint64_t pass, uint64_t pages, uint64_t order) {
    unsigned bits = 0;
    while ((1ull << bits) < pages) bits++;
    mask = (1ull << bits) - 1;
    if (order == static_cast<uint64_t>(Order::sequential)) {
      multiplier = increment = odd = 1;
      start = 0;
      shift = 63; // of numbers far below 2^63: nothing is left
      return;
    }
    shift = bits / 2 + 1;
    const uint64_t seed = mix(key ^ mix((worker << 40) + pass + 1));
    multiplier = (seed & ~7ull) | 5; // 1 modulo 4: Hull-Dobell, full period
    increment = mix(seed + 1) | 1;
    start = mix(seed + 2) & mask;
    odd = mix(seed + 3) | 1;
  }
  TESTVMM_INLINE uint64_t steps() const { return mask + 1; }
  TESTVMM_INLINE uint64_t next(uint64_t x) const { return (x * multiplier + increment) & mask; }
  TESTVMM_INLINE uint64_t page(uint64_t x) const {
    uint64_t y = x ^ (x >> shift);
    y = (y * odd) & mask;
    return y ^ (y >> shift);
  }
};

/** Where the `index`th page that a worker owns lies. */
struct PagePlace {
  uint64_t region, page;
};
template <typename Context> TESTVMM_INLINE PagePlace placeOf(const Context &c, uint64_t index) {
  const uint64_t inArea = index * c.stride + c.first;
  return {inArea / c.areaPages, c.areaFirst + inArea % c.areaPages};
}

} // namespace testvmm
