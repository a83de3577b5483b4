// Radial bases and cut-offs with derivatives up to the second.
#pragma once

#include "atoms/edge_lanes.h"
#include "atoms/radial_kernels.h"

namespace oarlock::OARLOCK_PATH {
namespace {

// A function of the distance and its derivatives.
template <typename T>
struct Jet {
  Vector<T> at[3];
};

// exp(−½ ((r − μ) / w)²)
template <typename T>
OARLOCK_ALWAYS_INLINE Jet<T> gaussian(const Vector<T>& r, const Vector<T>& centers, T width) {
  const T inverse = 1 / width;
  const Vector<T> u = (r - centers) * inverse, value = exponential<T>(u * u * T(-0.5));
  return {{value, -u * inverse * value, (u * u - T(1)) * (inverse * inverse) * value}};
}

// √(2 / r_c) sin(ω r) / r
template <typename T>
OARLOCK_ALWAYS_INLINE Jet<T> bessel(const Vector<T>& r, const Vector<T>& frequencies, T cutoff) {
  Vector<T> sine, cosine;
  sine_cosine<T>(r * frequencies, sine, cosine);
  const Vector<T> inverse = T(1) / r, s = T(__builtin_sqrt(2 / double(cutoff))) * inverse * sine;
  const Vector<T> c = T(__builtin_sqrt(2 / double(cutoff))) * inverse * frequencies * cosine;
  const Vector<T> slope = c - s * inverse;
  return {{s, slope, -frequencies * frequencies * s - T(2) * inverse * slope}};
}

// 1 at 0, and 0 from the cut-off on.
template <typename T>
OARLOCK_ALWAYS_INLINE Jet<T> cut_off(const Vector<T>& r, const atoms::RadialOptions& options) {
  Jet<T> c;
  const T limit = T(options.cutoff);
  if (options.cut == atoms::kCosine) {
    const T scale = T(3.14159265358979323846 / options.cutoff);
    Vector<T> sine, cosine;
    sine_cosine<T>(r * scale, sine, cosine);
    c = {{T(0.5) * (cosine + T(1)), T(-0.5) * scale * sine, T(-0.5) * scale * scale * cosine}};
  } else {
    const T p = T(options.power), scale = 1 / limit;
    const Vector<T> u = r * scale;
    Vector<T> base = every<T>(1);  // u to the power p − 2
    for (int k = 2; k < options.power; ++k) base = base * u;
    const T a = (p + 1) * (p + 2) / 2, b = p * (p + 2), d = p * (p + 1) / 2;
    c.at[0] = T(1) - base * u * u * (a - u * (b - d * u));
    c.at[1] = -scale * base * u * (a * p - u * (b * (p + 1) - d * (p + 2) * u));
    c.at[2] = -scale * scale * base *
              (a * p * (p - 1) - u * (b * (p + 1) * p - d * (p + 2) * (p + 1) * u));
  }
#pragma GCC unroll 3
  for (int k = 0; k < 3; ++k) c.at[k] = r < limit ? c.at[k] : Vector<T>{};
  return c;
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
