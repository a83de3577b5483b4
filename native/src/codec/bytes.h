// Whole numbers of a register as bytes in memory, and registers that are not full.
#pragma once

#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

constexpr uint32_t kQuietNan = 0x7fc00000u;

// The low byte of each lane.
OARLOCK_ALWAYS_INLINE void store_bytes(uint8_t* p, ints x) {
#if defined(OARLOCK_PATH_avx512)
  _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8((__m512i)x));
#elif defined(OARLOCK_PATH_avx2)
  const __m256i low = _mm256_and_si256((__m256i)x, _mm256_set1_epi32(255));
  const __m128i words16 = _mm_packus_epi32(_mm256_castsi256_si128(low),
                                           _mm256_extracti128_si256(low, 1));
  _mm_storel_epi64((__m128i*)p, _mm_packus_epi16(words16, words16));
#else
  for (int i = 0; i < kLanes; ++i) p[i] = uint8_t(x[i]);
#endif
}

// Bytes with a sign.
OARLOCK_ALWAYS_INLINE ints load_bytes(const uint8_t* p) {
#if defined(OARLOCK_PATH_avx512)
  return (ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p));
#elif defined(OARLOCK_PATH_avx2)
  return (ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p));
#else
  ints x;
  for (int i = 0; i < kLanes; ++i) x[i] = int8_t(p[i]);
  return x;
#endif
}

// The first `n` <= kLanes of a register; the others are 0.
OARLOCK_ALWAYS_INLINE floats load_part(const float* p, int64_t n) {
#if defined(OARLOCK_PATH_avx512)
  return _mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
#else
  floats x{};
  for (int64_t i = 0; i < n; ++i) x[i] = p[i];
  return x;
#endif
}

OARLOCK_ALWAYS_INLINE void store_part(float* p, floats x, int64_t n) {
#if defined(OARLOCK_PATH_avx512)
  _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), x);
#else
  for (int64_t i = 0; i < n; ++i) p[i] = x[i];
#endif
}

OARLOCK_ALWAYS_INLINE words lane_numbers() {
  words lanes;
  for (int i = 0; i < kLanes; ++i) lanes[i] = uint32_t(i);
  return lanes;
}

OARLOCK_ALWAYS_INLINE ints magnitudes(floats x) { return (ints)x & 0x7fffffff; }

OARLOCK_ALWAYS_INLINE ints larger(ints a, ints b) { return a > b ? a : b; }

// Every lane gets what `pair` makes of all.
template <typename Pair>
OARLOCK_ALWAYS_INLINE ints reduce(ints x, const Pair& pair) {
#pragma GCC unroll 4
  for (int width = kLanes / 2; width > 0; width /= 2)
    x = pair(x, __builtin_shuffle(x, (ints)lane_numbers() ^ width));
  return x;
}

OARLOCK_ALWAYS_INLINE int32_t largest(ints x) { return reduce(x, larger)[0]; }

OARLOCK_ALWAYS_INLINE int32_t sum(ints x) {
  return reduce(x, [](ints a, ints b) { return a + b; })[0];
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
