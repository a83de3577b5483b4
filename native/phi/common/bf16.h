// bfloat16 to float and back. A bfloat16 is the upper half of a float.
#pragma once

#include <cstdint>
#include <cstring>

namespace oarlock {

using Bf16 = std::uint16_t;

// One function, several code paths; the loader picks the one this processor runs. Portable builds
// and compilers without the attribute get the plain code.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define OARLOCK_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define OARLOCK_CLONES
#endif

inline float widen(float value) { return value; }

inline float widen(Bf16 value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

// Rounds the sum of two widened values to nearest, ties to even. A NaN that arises there has a
// lower half of zeros (an operand's NaN, or the processor's own), so it stays one.
inline Bf16 narrow_sum(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<Bf16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Rounds any value to nearest, ties to even; a NaN stays a (quiet) NaN.
inline Bf16 narrow(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return nan ? static_cast<Bf16>((bits >> 16) | 0x40u) : narrow_sum(value);
}

void widen_all(const Bf16* from, float* to, std::int64_t count);
void narrow_all(const float* from, Bf16* to, std::int64_t count);

}  // namespace oarlock
