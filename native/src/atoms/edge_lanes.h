// Registers of float32 and of float64, and the functions of them that kernels of edges need.
#pragma once

#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

typedef double doubles __attribute__((vector_size(4 * kLanes)));
typedef int64_t longs __attribute__((vector_size(4 * kLanes)));

template <typename T>
struct Lanes;

template <>
struct Lanes<float> {
  using Vector = floats;
  using Bits = ints;
  static constexpr int count = kLanes;
  static constexpr float kRounds = 12582912.0f;  // 1.5 2^23: the last bit of a sum with it is worth 1
  static constexpr int kMantissa = 23, kExpTerms = 7, kLogTerms = 7, kSineTerms = 6;
  static constexpr float kLeast = -69.0f;         // of the exponential's argument
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  static constexpr float kPiHigh = 3.140625f, kPiLow = 9.67653589793e-4f;
};

template <>
struct Lanes<double> {
  using Vector = doubles;
  using Bits = longs;
  static constexpr int count = kLanes / 2;
  static constexpr double kRounds = 6755399441055744.0;
  static constexpr int kMantissa = 52, kExpTerms = 13, kLogTerms = 16, kSineTerms = 10;
  static constexpr double kLeast = -600.0;
  static constexpr double kLn2High = 6.93145751953125e-1, kLn2Low = 1.42860682030941723212e-6;
  static constexpr double kPiHigh = 3.141592502593994, kPiLow = 1.5099579909783765e-07;
};

template <typename T>
using Vector = typename Lanes<T>::Vector;

template <typename T>
OARLOCK_ALWAYS_INLINE Vector<T> get(const T* p) {
  return load_as<Vector<T>>(p);
}
template <typename T>
OARLOCK_ALWAYS_INLINE void put(T* p, const Vector<T>& x) {
  store_as(p, x);
}
template <typename T>
OARLOCK_ALWAYS_INLINE Vector<T> every(T x) {
  return x - Vector<T>{};
}

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

// The first `left` lanes of memory, others 0; and back.
template <typename T>
OARLOCK_ALWAYS_INLINE Vector<T> get_some(const T* p, int64_t left) {
  T lanes[Lanes<T>::count] = {};
  for (int64_t k = 0; k < left; ++k) lanes[k] = p[k];
  return get(lanes);
}
template <typename T>
OARLOCK_ALWAYS_INLINE void put_some(T* p, const Vector<T>& x, int64_t left) {
  T lanes[Lanes<T>::count];
  put(lanes, x);
  for (int64_t k = 0; k < left; ++k) p[k] = lanes[k];
}

template <typename T>
OARLOCK_ALWAYS_INLINE T total(const Vector<T>& x) {
  T lanes[Lanes<T>::count];
  put(lanes, x);
  for (int width = Lanes<T>::count / 2; width > 0; width /= 2)
    for (int k = 0; k < width; ++k) lanes[k] += lanes[k + width];
  return lanes[0];
}

// a where it is above b, and where b is NaN it is b.
template <typename T>
OARLOCK_ALWAYS_INLINE Vector<T> larger(const Vector<T>& a, const Vector<T>& b) {
  return a > b ? a : b;
}

// e^x for x <= 0, NaN for NaN. 0 where it would be below 1e-30 (float64: 1e-260): the products of smaller
// numbers with weights are denormal, which processors compute a hundred times slower.
template <typename T>
OARLOCK_ALWAYS_INLINE Vector<T> exponential(Vector<T> x) {
  using L = Lanes<T>;
  using V = Vector<T>;
  const V given = x;
  x = larger<T>(every<T>(L::kLeast), x);
  const V shifted = multiply_add(x, every<T>(T(1.44269504088896340736)), every<T>(L::kRounds));
  const V n = shifted - L::kRounds;
  const V r = (x - n * L::kLn2High) - n * L::kLn2Low;
  V y = every<T>(1);
#pragma GCC unroll 16
  for (int k = L::kExpTerms; k > 0; --k) y = multiply_add(y * T(1.0 / k), r, every<T>(1));
  using B = typename L::Bits;
  const B bits = __builtin_bit_cast(B, y) + (__builtin_bit_cast(B, shifted) << L::kMantissa);
  const V found = __builtin_bit_cast(V, bits);
  return given < every<T>(L::kLeast) ? V{} : (x == x ? found : x);
}

// ln(1 + t) = 2 artanh(s), s = t / (2 + t), for t in [0, 1].
template <typename T>
OARLOCK_ALWAYS_INLINE Vector<T> log_one_plus(const Vector<T>& s) {
  using L = Lanes<T>;
  const Vector<T> square = s * s;
  Vector<T> y = every<T>(T(1.0 / (2 * L::kLogTerms + 1)));
#pragma GCC unroll 16
  for (int k = L::kLogTerms - 1; k >= 0; --k)
    y = multiply_add(y, square, every<T>(T(1.0 / (2 * k + 1))));
  return T(2) * s * y;
}

// sin x and cos x, for |x| up to some thousands.
template <typename T>
OARLOCK_ALWAYS_INLINE void sine_cosine(const Vector<T>& x, Vector<T>& sine, Vector<T>& cosine) {
  using L = Lanes<T>;
  using V = Vector<T>;
  using B = typename L::Bits;
  const V shifted = multiply_add(x, every<T>(T(0.31830988618379067154)), every<T>(L::kRounds));
  const V n = shifted - L::kRounds;
  const V r = (x - n * L::kPiHigh) - n * L::kPiLow;
  const V square = r * r;
  V s = every<T>(1), c = every<T>(1);
#pragma GCC unroll 16
  for (int k = L::kSineTerms; k > 0; --k) {
    s = multiply_add(s * T(-1.0 / (2 * k * (2 * k + 1))), square, every<T>(1));
    c = multiply_add(c * T(-1.0 / (2 * k * (2 * k - 1))), square, every<T>(1));
  }
  const B sign = __builtin_bit_cast(B, shifted) << (8 * sizeof(T) - 1);  // of an odd number of turns
  sine = __builtin_bit_cast(V, __builtin_bit_cast(B, s * r) ^ sign);
  cosine = __builtin_bit_cast(V, __builtin_bit_cast(B, c) ^ sign);
}

// An activation and its derivatives.
template <typename T>
struct Derivatives {
  Vector<T> at[4];
};

// Shifted softplus ln(eˣ / 2 + 1 / 2), or silu x / (1 + e⁻ˣ), and derivatives up to `kOrder`.
template <typename T, int kOrder, bool kSilu>
OARLOCK_ALWAYS_INLINE Derivatives<T> activation(const Vector<T>& x) {
  using V = Vector<T>;
  const V magnitude = x < V{} ? -x : x;
  const V t = exponential<T>(-magnitude);
  const V q = T(1) / ((T(1) + t) * (T(2) + t)), r = q * (T(2) + t);
  const V sigmoid = x < V{} ? t * r : r;
  const V first = t * r * r;                                       // of the sigmoid
  const V opposite = (T(1) - t) * r, second = first * (x < V{} ? opposite : -opposite);
  Derivatives<T> d;
  if constexpr (kSilu) {
    d.at[0] = x * sigmoid;
    if constexpr (kOrder > 0) d.at[1] = sigmoid + x * first;
    if constexpr (kOrder > 1) d.at[2] = T(2) * first + x * second;
    if constexpr (kOrder > 2) d.at[3] = T(3) * second + x * first * (T(1) - T(6) * first);
  } else {
    const V above = x < V{} ? V{} : x;
    d.at[0] = above + log_one_plus<T>(t * q * (T(1) + t)) - T(0.69314718055994530942);
    if constexpr (kOrder > 0) d.at[1] = sigmoid;
    if constexpr (kOrder > 1) d.at[2] = first;
    if constexpr (kOrder > 2) d.at[3] = second;
  }
  return d;
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
