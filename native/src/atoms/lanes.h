// Registers of float32 or float64, for sources named *.kernel.cpp.
#pragma once

#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

typedef double doubles __attribute__((vector_size(4 * kLanes)));

template <typename T>
struct Register;
template <>
struct Register<float> {
  using type = floats;
};
template <>
struct Register<double> {
  using type = doubles;
};

// As many numbers of type T as a register holds.
template <typename T>
using Lanes = typename Register<T>::type;

template <typename T>
constexpr int kLanesOf = int(4 * kLanes / sizeof(T));

OARLOCK_ALWAYS_INLINE doubles multiply_add(doubles a, doubles b, doubles c) {
#if defined(OARLOCK_PATH_avx512)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(OARLOCK_PATH_avx2)
  return _mm256_fmadd_pd(a, b, c);
#elif defined(OARLOCK_PATH_neon)
  return vfmaq_f64(c, a, b);
#else
  return a * b + c;
#endif
}

OARLOCK_ALWAYS_INLINE Lanes<float> every(float x) { return x - Lanes<float>{}; }
OARLOCK_ALWAYS_INLINE Lanes<double> every(double x) { return x - Lanes<double>{}; }

template <typename T>
OARLOCK_ALWAYS_INLINE Lanes<T> load_lanes(const T* p) {
  return load_as<Lanes<T>>(p);
}

template <typename T>
OARLOCK_ALWAYS_INLINE T sum_of(Lanes<T> x) {
  T sum = x[0];
#pragma GCC unroll 16
  for (int i = 1; i < kLanesOf<T>; ++i) sum += x[i];
  return sum;
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
