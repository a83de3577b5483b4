// Activations that a product applies to its result, in float32 and with the same bits on all paths.
#pragma once

#include "lowp/codecs.h"

namespace oarlock::OARLOCK_PATH {
namespace {

OARLOCK_INLINE float power_of_two(float n) {  // of a whole number in [-126, 127]
  return from_bits((to_bits(n + 12582912.0f) + (127u - 0x4b400000u)) << 23);
}

// e^x to 1e-7, for x in [-87.3, 88]; beyond it stays what it is there. NaN stays NaN.
OARLOCK_INLINE float exponential(float x) {
  const float low = x < -87.3f ? -87.3f : x, y = low > 88.0f ? 88.0f : low;
  const float n = nearest(y * 1.44269504f);
  const float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return p * power_of_two(n);
}

OARLOCK_INLINE float silu(float x) {
  // Of e^-|x|, which does not overflow.
  const float magnitude = from_bits(to_bits(x) & 0x7fffffffu);
  const float e = exponential(-magnitude), below = x < 0.0f ? e : 1.0f;
  return x * (below / (1.0f + e));
}

// x times the normal distribution function at x. With t = 1 / (1 + z / 2) and z = |x| / sqrt 2,
// erfc(z) = t exp(p(t) - z^2); p is our fit, right to 6e-8 for z up to 12.
OARLOCK_INLINE float gelu(float x) {
  const float z = from_bits(to_bits(x) & 0x7fffffffu) * 0.70710678f;
  const float t = 1.0f / (1.0f + 0.5f * z);
  float p = 0.15775100886821747f;
  p = p * t - 0.7501815557479858f;
  p = p * t + 1.3186529874801636f;
  p = p * t - 0.909740686416626f;
  p = p * t + 0.09432142972946167f;
  p = p * t - 0.09025566279888153f;
  p = p * t + 0.06523264944553375f;
  p = p * t + 0.3803541362285614f;
  p = p * t + 0.9993481040000916f;
  p = p * t - 1.2654823064804077f;
  const float tail = 0.5f * t * exponential(p - z * z);
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

OARLOCK_INLINE float relu(float x) { return x < 0.0f ? 0.0f : x; }

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
