// Sums in float64 in a fixed order, the same on every code path: element i goes to lane i mod 16, and
// the lanes are added pairwise.
#pragma once

#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

// Doubles in a register.
constexpr int kWide = kLanes / 2;
typedef double doubles __attribute__((vector_size(8 * kWide)));

OARLOCK_ALWAYS_INLINE doubles load_doubles(const double* p) { return load_as<doubles>(p); }
OARLOCK_ALWAYS_INLINE doubles all(double x) { return x - doubles{}; }

// The lower and the upper half of a register, wider.
OARLOCK_ALWAYS_INLINE void widen(floats x, doubles* halves) {
#if defined(OARLOCK_PATH_avx512)
  halves[0] = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
  halves[1] = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
#elif defined(OARLOCK_PATH_avx2)
  halves[0] = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
  halves[1] = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
#else
  halves[0] = doubles{x[0], x[1]};
  halves[1] = doubles{x[2], x[3]};
#endif
}

constexpr int kSumLanes = 16, kSumRegisters = kSumLanes / kWide;

// Adds 16 numbers, one to each lane.
OARLOCK_ALWAYS_INLINE void add_lanes(const floats* x, doubles* lanes) {
  for (int i = 0; i < kSumLanes / kLanes; ++i) {
    doubles halves[2];
    widen(x[i], halves);
    lanes[2 * i] += halves[0];
    lanes[2 * i + 1] += halves[1];
  }
}

OARLOCK_ALWAYS_INLINE double total(const doubles* lanes) {
  double sum[kSumLanes];
  __builtin_memcpy(sum, lanes, sizeof sum);
  for (int width = kSumLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) sum[i] += sum[i + width];
  return sum[0];
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
