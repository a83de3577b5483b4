// What attention needs of the registers, and the block of products that fits into them.
#pragma once

#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

// Rows of a block of products that the registers hold.
#if defined(OARLOCK_PATH_avx512)
constexpr int kBlockRows = 12;
#elif defined(OARLOCK_PATH_avx2)
constexpr int kBlockRows = 6;
#elif defined(OARLOCK_PATH_neon)
constexpr int kBlockRows = 12;
#else
constexpr int kBlockRows = 6;
#endif
constexpr int kBlockRegisters = 2;  // beside each other, in a row of a block
constexpr int kPanel = kBlockRegisters * kLanes;

OARLOCK_ALWAYS_INLINE floats load_floats(const bfloat16* p) {
  typedef uint16_t halves __attribute__((vector_size(2 * kLanes)));
  return __builtin_bit_cast(floats, __builtin_convertvector(load_as<halves>(p), words) << 16);
}
OARLOCK_ALWAYS_INLINE ints load_ints(const int32_t* p) { return load_as<ints>(p); }

OARLOCK_ALWAYS_INLINE floats maximum(floats a, floats b) {
#if defined(OARLOCK_PATH_avx512)
  return _mm512_max_ps(a, b);
#elif defined(OARLOCK_PATH_avx2)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

constexpr int32_t kLaneNumbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// Lane i and lane i ^ width change places.
OARLOCK_ALWAYS_INLINE floats swapped(floats x, int width) {
  return __builtin_shuffle(x, load_ints(kLaneNumbers) ^ width);
}

// x, or y where a < b or c < d.
OARLOCK_ALWAYS_INLINE floats replaced(floats x, float y, words a, words b, words c, words d) {
#if defined(OARLOCK_PATH_avx512)
  const __mmask16 where =
      _mm512_cmplt_epu32_mask(__m512i(a), __m512i(b)) | _mm512_cmplt_epu32_mask(__m512i(c), __m512i(d));
  return _mm512_mask_mov_ps(x, where, all(y));
#else
  return (a < b) | (c < d) ? all(y) : x;
#endif
}

// Rows become columns.
OARLOCK_ALWAYS_INLINE void transpose(floats (&rows)[kLanes]) {
  const ints lanes = load_ints(kLaneNumbers);
#pragma GCC unroll 4
  for (int width = 1; width < kLanes; width *= 2) {
    // In lanes with the bit `width` of the other row, at the lane without it; and the other way.
    const ints moved = (lanes & width) != 0;
    const ints low = (lanes & ~moved) | ((lanes - width + kLanes) & moved);
    const ints high = ((lanes + width) & ~moved) | ((lanes + kLanes) & moved);
#pragma GCC unroll 16
    for (int row = 0; row < kLanes; ++row)
      if ((row & width) == 0) {
        const floats a = rows[row], b = rows[row + width];
        rows[row] = __builtin_shuffle(a, b, low);
        rows[row + width] = __builtin_shuffle(a, b, high);
      }
  }
}

// Whether any lane is not 0.
OARLOCK_ALWAYS_INLINE bool any(ints x) {
#if defined(OARLOCK_PATH_avx512)
  return _mm512_test_epi32_mask(__m512i(x), __m512i(x)) != 0;
#elif defined(OARLOCK_PATH_avx2)
  return !_mm256_testz_si256(__m256i(x), __m256i(x));
#else
  return (x[0] | x[1] | x[2] | x[3]) != 0;
#endif
}

OARLOCK_ALWAYS_INLINE float largest_of(floats x) {
#pragma GCC unroll 4
  for (int width = kLanes / 2; width > 0; width /= 2) x = maximum(x, swapped(x, width));
  return x[0];
}

OARLOCK_ALWAYS_INLINE float sum_of(floats x) {
#pragma GCC unroll 4
  for (int width = kLanes / 2; width > 0; width /= 2) x += swapped(x, width);
  return x[0];
}

// 2^x for x <= 127, to 2.3 units in the last place, or 2.1 where multiplication and addition are
// fused; 0 below 2^-126, NaN for NaN.
//
// x = n + r with an integer n and |r| <= 1/2; 2^r by a polynomial of degree 5 of least relative error.
OARLOCK_ALWAYS_INLINE floats power_of_two(floats x) {
  constexpr float kC0 = 1.0f, kC1 = 0.693147f, kC2 = 0.24022242f, kC3 = 0.055507336f,
                  kC4 = 0.009671513f, kC5 = 0.0013264727f, kLeast = -126.0f;
  constexpr float kRounds = 12582912.0f;  // 1.5 2^23: the last bit of a sum with it is worth 1
  const floats shifted = x + kRounds, n = shifted - kRounds, r = x - n;
  floats y = multiply_add(all(kC5), r, all(kC4));
  y = multiply_add(y, r, all(kC3));
  y = multiply_add(y, r, all(kC2));
  y = multiply_add(y, r, all(kC1));
  y = multiply_add(y, r, all(kC0));
#if defined(OARLOCK_PATH_avx512)
  const __mmask16 large = _mm512_cmp_ps_mask(x, all(kLeast), _CMP_NLT_UQ);
  return _mm512_maskz_scalef_ps(large, y, n);
#else
  const ints bits = __builtin_bit_cast(ints, y) + (__builtin_bit_cast(ints, shifted) << 23);
  const ints found = bits & ~(x < kLeast);
  const ints nan = x != x;
  return __builtin_bit_cast(floats, (found & ~nan) | (__builtin_bit_cast(ints, x) & nan));
#endif
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
