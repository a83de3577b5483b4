// Sums in float64 in a fixed order, the same on every code path.
#pragma once

#if defined(OARLOCK_PATH_avx512) || defined(OARLOCK_PATH_avx2)
#include <immintrin.h>
#endif

#include "core/kernel.h"

namespace oarlock::OARLOCK_PATH {
namespace {

// Doubles in a register of this path; all divide kLanes.
#if defined(OARLOCK_PATH_avx512)
constexpr int kWidth = 8;
#elif defined(OARLOCK_PATH_avx2)
constexpr int kWidth = 4;
#else
constexpr int kWidth = 2;
#endif

typedef float floats __attribute__((vector_size(4 * kWidth)));
typedef double doubles __attribute__((vector_size(8 * kWidth)));
typedef uint16_t halves __attribute__((vector_size(2 * kWidth)));
typedef uint32_t words __attribute__((vector_size(4 * kWidth)));

constexpr int kLanes = 16;
constexpr int kRegisters = kLanes / kWidth;
constexpr int kStreams = 4;
constexpr int kAhead = 512;  // bytes to fetch ahead

// Element i goes to lane i mod 16; the lanes are added pairwise.
struct LaneSum {
  double lanes[kLanes] = {};
  double total() const {
    double sum[kLanes];
    for (int j = 0; j < kLanes; ++j) sum[j] = lanes[j];
    for (int width = kLanes / 2; width > 0; width /= 2)
      for (int j = 0; j < width; ++j) sum[j] += sum[j + width];
    return sum[0];
  }
};

template <typename Vector, typename T>
inline Vector load_as(const T* p) {
  Vector x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

inline floats load_floats(const float* p) { return load_as<floats>(p); }
inline floats load_floats(const bfloat16* p) {
  return __builtin_bit_cast(floats, __builtin_convertvector(load_as<halves>(p), words) << 16);
}

inline doubles widen(floats x) {
  // GCC 12 takes three instructions for the generic one.
#if defined(OARLOCK_PATH_avx512)
  return _mm512_cvtps_pd(x);
#elif defined(OARLOCK_PATH_avx2)
  return _mm256_cvtps_pd(x);
#else
  return __builtin_convertvector(x, doubles);
#endif
}

// Reads four parts side by side, because one stream does not keep a core's memory requests busy.
template <typename T>
double squared_norm(const void* data, int64_t n) {
  const T* const x = static_cast<const T*>(data);
  const int64_t part = n / (kStreams * kLanes) * kLanes;
  doubles lanes[kRegisters] = {};
  for (int64_t i = 0; i < part; i += kLanes)
    for (int stream = 0; stream < kStreams; ++stream) {
      const T* const here = x + stream * part + i;
      __builtin_prefetch(here + kAhead / sizeof(T));
      for (int r = 0; r < kRegisters; ++r) {
        const doubles value = widen(load_floats(here + r * kWidth));
        lanes[r] += value * value;
      }
    }
  LaneSum sum;
  __builtin_memcpy(sum.lanes, lanes, sizeof lanes);
  for (int64_t i = kStreams * part; i < n; ++i) {
    const double value = load(x, i);
    sum.lanes[i % kLanes] += value * value;
  }
  return sum.total();
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
