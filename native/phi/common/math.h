// Transcendental functions of one float that compilers turn into vector code.
//
// Far more exact than a bfloat16: relative errors below 3e-6. Polynomials are least-squares fits of
// the relative error, reweighted towards equal peaks. NaN in, NaN out.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace oarlock {

inline float power_of_two(std::int32_t exponent) {
  const std::int32_t bits = (exponent + 127) << 23;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// exp(x) = 2^n exp(r), n the integer nearest to x / ln 2. 2^n in two factors, so that results
// reach from the smallest denormal to infinity.
inline float fast_exp(float x) {
  constexpr float kRound = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer
  const float bounded = x < -104.f ? -104.f : (x > 89.f ? 89.f : x);
  const float shifted = bounded * 1.44269504f + kRound;
  std::int32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  const std::int32_t n = bits - 0x4b400000;
  const float whole = shifted - kRound;
  const float r = (bounded - whole * 0.693359375f) + whole * 2.12194440e-4f;
  float p = 0.008312527f;
  p = p * r + 0.04189016f;
  p = p * r + 0.166671146f;
  p = p * r + 0.499992315f;
  p = p * r * r + r + 1.f;
  const std::int32_t half = n >> 1;
  return p * power_of_two(half) * power_of_two(n - half);
}

inline float fast_sigmoid(float x) { return 1.f / (1.f + fast_exp(-x)); }

inline float fast_tanh(float x) {
  const float size = std::fabs(x), square = x * x;
  float small = 0.0156401797f;
  small = small * square - 0.0522309301f;
  small = small * square + 0.133135177f;
  small = small * square - 0.333326215f;
  small = x + x * square * small;
  const float large = std::copysign(1.f - 2.f / (fast_exp(2.f * size) + 1.f), x);
  return size < 0.6f ? small : large;
}

// The normal distribution's cumulative probability, given `density` = exp(-x^2 / 2).
// erfc(z) exp(z^2) is nearly a polynomial in 1 / (1 + p z).
inline float normal_probability(float x, float density) {
  const float t = 1.f / (1.f + 0.38f * 0.707106781f * std::fabs(x));
  float p = -0.125417863f;
  p = p * t + 0.336037563f;
  p = p * t - 0.0699151789f;
  p = p * t + 0.24783583f;
  p = p * t + 0.180593823f;
  p = p * t + 0.216577482f;
  p = p * t + 0.21428731f;
  const float tail = 0.5f * p * t * density;
  return x > 0.f ? 1.f - tail : tail;
}

}  // namespace oarlock
