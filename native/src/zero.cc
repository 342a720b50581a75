#include "zero.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace pagewake {

namespace {

// Blocks are small enough that a page with data near its start costs next to nothing, and large enough to keep the loop tight.
constexpr size_t kBlock = 256;

bool block_is_zero_words(const uint8_t* bytes) {
  uint64_t any = 0;
  for (size_t i = 0; i < kBlock; i += sizeof any) {
    uint64_t word;
    std::memcpy(&word, bytes + i, sizeof word);
    any |= word;
  }
  return any == 0;
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) size_t zero_prefix_avx2(const uint8_t* bytes, size_t length) {
  size_t at = 0;
  for (; at + kBlock <= length; at += kBlock) {
    const auto* lanes = reinterpret_cast<const __m256i*>(bytes + at);
    __m256i any = _mm256_loadu_si256(lanes);
    for (size_t i = 1; i < kBlock / sizeof(__m256i); i++) any = _mm256_or_si256(any, _mm256_loadu_si256(lanes + i));
    if (!_mm256_testz_si256(any, any)) break;
  }
  return at;
}

size_t zero_prefix_sse2(const uint8_t* bytes, size_t length) {
  size_t at = 0;
  for (; at + kBlock <= length; at += kBlock) {
    const auto* lanes = reinterpret_cast<const __m128i*>(bytes + at);
    __m128i any = _mm_loadu_si128(lanes);
    for (size_t i = 1; i < kBlock / sizeof(__m128i); i++) any = _mm_or_si128(any, _mm_loadu_si128(lanes + i));
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(any, _mm_setzero_si128())) != 0xffff) break;
  }
  return at;
}
#endif

// The length of the prefix of whole blocks that are zero.
size_t zero_prefix(const uint8_t* bytes, size_t length) {
#if defined(__x86_64__)
  static const bool avx2 = __builtin_cpu_supports("avx2") != 0;
  return avx2 ? zero_prefix_avx2(bytes, length) : zero_prefix_sse2(bytes, length);
#else
  size_t at = 0;
  while (at + kBlock <= length && block_is_zero_words(bytes + at)) at += kBlock;
  return at;
#endif
}

}  // namespace

bool is_zero(const uint8_t* bytes, size_t length) {
  if (length >= kBlock) {
    // The last block may overlap the one before it: that spares a loop over single bytes.
    return zero_prefix(bytes, length) == length / kBlock * kBlock && block_is_zero_words(bytes + length - kBlock);
  }
  for (size_t i = 0; i < length; i++) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

}  // namespace pagewake
