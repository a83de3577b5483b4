// For sources named *.kernel.cpp, which are compiled once for every code path.
//
// Everything such a source defines must be inside `namespace oarlock::OARLOCK_PATH` and, but for
// the table of kernels, have internal linkage. It includes no header with inline functions, the
// standard library's included: the linker would keep one copy of such a function for all paths,
// perhaps one with instructions that the processor lacks. The build checks it
// (cmake/check_kernel_objects.cmake).
#pragma once

#include <stdint.h>

namespace oarlock::OARLOCK_PATH {
namespace {

struct bfloat16 {
  uint16_t bits;
};

inline float from_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline uint32_t to_bits(float x) { return __builtin_bit_cast(uint32_t, x); }

inline float load(const float* p, int64_t i) { return p[i]; }
inline float load(const bfloat16* p, int64_t i) { return from_bits(uint32_t(p[i].bits) << 16); }

// Round to nearest, ties to even; NaN stays NaN.
inline uint16_t round_nearest(float x) {
  const uint32_t bits = to_bits(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40u;
  return uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

// Round up with the probability that 16 random bits give; Inf and NaN stay.
inline uint16_t round_randomly(float x, uint32_t random16) {
  const uint32_t bits = to_bits(x);
  const uint32_t rounded = (bits + random16) >> 16;
  const uint32_t nan = (bits >> 16) | 0x40u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  return uint16_t(magnitude > 0x7f800000u    ? nan
                  : magnitude == 0x7f800000u ? bits >> 16
                                             : rounded);
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
