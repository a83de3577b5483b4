// float16 in memory, for code that runs once.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace oarlock::quant {

inline float from_half(std::uint16_t half) {
  const float sign = half & 0x8000u ? -1.0f : 1.0f;
  const int exponent = half >> 10 & 31, fraction = half & 0x3ff;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
}

// To nearest, ties to even; Inf for what is too large or not finite.
inline std::uint16_t to_half(float x) {
  const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float magnitude = std::fabs(x);
  if (magnitude == 0.0f) return sign;
  if (!(magnitude < 65520.0f)) return sign | 0x7c00;
  int exponent = 0;
  std::frexp(magnitude, &exponent);                 // magnitude < 2^exponent
  const int place = exponent < -13 ? -24 : exponent - 11;  // of the last bit
  const auto units = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(magnitude, -place)));
  // Whole numbers of units up to 2048; the carry into the exponent is right by itself.
  return sign | static_cast<std::uint16_t>(units + ((place + 24) << 10));
}

}  // namespace oarlock::quant
