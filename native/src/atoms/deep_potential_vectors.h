// Vectors of either type for the kernels of the Deep Potential.
#pragma once

#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

typedef double doubles __attribute__((vector_size(4 * kLanes)));
typedef int64_t longs __attribute__((vector_size(4 * kLanes)));

template <typename T>
struct Vector;
template <>
struct Vector<float> {
  typedef floats type;
  typedef ints whole;
  static constexpr int lanes = kLanes;
};
template <>
struct Vector<double> {
  typedef doubles type;
  typedef longs whole;
  static constexpr int lanes = kLanes / 2;
};
template <typename T>
using vector = typename Vector<T>::type;
template <typename T>
using whole = typename Vector<T>::whole;
template <typename T>
constexpr int lanes = Vector<T>::lanes;

template <typename T>
OARLOCK_ALWAYS_INLINE vector<T> load(const T* p) { return load_as<vector<T>>(p); }
template <typename T>
OARLOCK_ALWAYS_INLINE void store(T* p, const vector<T>& x) { store_as(p, x); }
template <typename T>
OARLOCK_ALWAYS_INLINE vector<T> fill(T x) { return x - vector<T>{}; }

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

OARLOCK_ALWAYS_INLINE floats square_roots(floats x) {
#if defined(OARLOCK_PATH_avx512)
  return _mm512_sqrt_ps(x);
#elif defined(OARLOCK_PATH_avx2)
  return _mm256_sqrt_ps(x);
#else
  for (int i = 0; i < kLanes; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

OARLOCK_ALWAYS_INLINE doubles square_roots(doubles x) {
#if defined(OARLOCK_PATH_avx512)
  return _mm512_sqrt_pd(x);
#elif defined(OARLOCK_PATH_avx2)
  return _mm256_sqrt_pd(x);
#else
  for (int i = 0; i < kLanes / 2; ++i) x[i] = __builtin_sqrt(x[i]);
  return x;
#endif
}

// a / b for b within 1 ... 1e30.
OARLOCK_ALWAYS_INLINE floats divide(floats a, floats b) {
#if defined(OARLOCK_PATH_avx512)
  floats inverse = _mm512_rcp14_ps(b);
  inverse = multiply_add(inverse, multiply_add(-b, inverse, all(1.0f)), inverse);
  const floats ratio = a * inverse;
  return multiply_add(multiply_add(-b, ratio, a), inverse, ratio);
#else
  return a / b;
#endif
}

OARLOCK_ALWAYS_INLINE doubles divide(doubles a, doubles b) {
#if defined(OARLOCK_PATH_avx512)
  const doubles one = fill(1.0);
  doubles inverse = _mm512_rcp14_pd(b);
  inverse = multiply_add(inverse, multiply_add(-b, inverse, one), inverse);
  inverse = multiply_add(inverse, multiply_add(-b, inverse, one), inverse);
  const doubles ratio = a * inverse;
  return multiply_add(multiply_add(-b, ratio, a), inverse, ratio);
#else
  return a / b;
#endif
}

template <typename T>
struct Exponential;
template <>
struct Exponential<float> {
  static constexpr int kTerms = 6;  // 1/7! to 1/2!
  static constexpr float kMost = 10.0f, kMagic = 0x1.8p23f, kBase = 0x1.715476p+0f;
  static constexpr float kHigh = 0x1.62e4p-1f, kLow = 0x1.7f7d1cp-20f;
  static constexpr int kBias = 127, kMantissa = 23;
  static constexpr int32_t kSign = -0x7fffffff - 1;
};
template <>
struct Exponential<double> {
  static constexpr int kTerms = 12;  // 1/13! to 1/2!
  static constexpr double kMost = 22.0, kMagic = 0x1.8p52, kBase = 0x1.71547652b82fep+0;
  static constexpr double kHigh = 0x1.62e42fefa0000p-1, kLow = 0x1.cf79abc9e3b39p-40;
  static constexpr int kBias = 1023, kMantissa = 52;
  static constexpr int64_t kSign = -0x7fffffffffffffff - 1;
};

constexpr double kFactorials[] = {  // 1/13! to 1/2!
    1.6059043836821613e-10, 2.0876756987868099e-09, 2.5052108385441720e-08, 2.7557319223985893e-07,
    2.7557319223985888e-06, 2.4801587301587302e-05, 1.9841269841269841e-04, 1.3888888888888889e-03,
    8.3333333333333332e-03, 4.1666666666666664e-02, 1.6666666666666666e-01, 0.5};

// By e^2|x| - 1; NaN stays NaN.
template <typename T>
OARLOCK_ALWAYS_INLINE vector<T> hyperbolic_tangent(vector<T> x) {
  using E = Exponential<T>;
  const whole<T> sign = (whole<T>)x & (E::kSign + whole<T>{});
  vector<T> y = (vector<T>)((whole<T>)x ^ sign);
  const vector<T> most = fill(E::kMost);
  y = y > most ? most : y;
  y = y + y;
  const vector<T> shifted = multiply_add(y, fill(E::kBase), fill(E::kMagic));
  const vector<T> power = shifted - fill(E::kMagic);
  vector<T> r = multiply_add(power, fill(-E::kHigh), y);
  r = multiply_add(power, fill(-E::kLow), r);
  vector<T> p = fill(T(kFactorials[12 - E::kTerms]));
#pragma GCC unroll 12
  for (int i = 1; i < E::kTerms; ++i)
    p = multiply_add(p, r, fill(T(kFactorials[12 - E::kTerms + i])));
  p = multiply_add(p * r, r, r);
  // The lowest bits of `shifted` are the power of two.
  const vector<T> two = (vector<T>)(((whole<T>)shifted + E::kBias) << E::kMantissa);
  const vector<T> grown = multiply_add(p, two, two - fill(T(1)));
  const vector<T> result = divide(grown, grown + fill(T(2)));
  return (vector<T>)((whole<T>)result | sign);
}

// Lane i of the result is the sum of all lanes of x[i].
template <typename T>
OARLOCK_ALWAYS_INLINE vector<T> totals(vector<T> (&x)[lanes<T>]) {
  constexpr int n = lanes<T>;
#pragma GCC unroll 4
  for (int stride = 1; stride < n; stride *= 2) {
    whole<T> kept, other;
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
      kept[i] = (i & stride) ? n + i : i;
      other[i] = kept[i] ^ stride;
    }
#pragma GCC unroll 8
    for (int i = 0; i < n / stride; i += 2)
      x[i / 2] = __builtin_shuffle(x[i], x[i + 1], kept) + __builtin_shuffle(x[i], x[i + 1], other);
  }
  return x[0];
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
