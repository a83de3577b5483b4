// For sources named *.kernel.cpp, which are compiled once for every code path.
//
// Everything such a source defines must be inside `namespace oarlock::OARLOCK_PATH` and, but for
// the table of kernels, have internal linkage. It includes no header with inline functions, the
// standard library's included: the linker would keep one copy of such a function for all paths,
// perhaps one with instructions that the processor lacks. The build checks it
// (cmake/check_kernel_objects.cmake).
#pragma once

#include <stdint.h>

#include "core/inline.h"

namespace oarlock::OARLOCK_PATH {
namespace {

enum class bfloat16 : uint16_t {};

OARLOCK_INLINE float from_bits(uint32_t bits) { return __builtin_bit_cast(float, bits); }
OARLOCK_INLINE uint32_t to_bits(float x) { return __builtin_bit_cast(uint32_t, x); }

OARLOCK_INLINE float square_root(float x) {
#if defined(__CUDA_ARCH__)
  return sqrtf(x);
#else
  return __builtin_sqrtf(x);
#endif
}

OARLOCK_INLINE float load(const float* p, int64_t i) { return p[i]; }
OARLOCK_INLINE float load(const bfloat16* p, int64_t i) { return from_bits(uint32_t(p[i]) << 16); }

// Adds `increment` to the bits of x and keeps the upper half; Inf and NaN stay what they are.
OARLOCK_INLINE uint16_t narrow(uint32_t bits, uint32_t increment) {
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t added = magnitude < 0x7f800000u ? increment : 0u;
  const uint32_t quiet = magnitude > 0x7f800000u ? 0x40u : 0u;
  return uint16_t(((bits + added) >> 16) | quiet);
}

// Round to nearest, ties to even.
OARLOCK_INLINE uint16_t round_nearest(float x) {
  const uint32_t bits = to_bits(x);
  return narrow(bits, 0x7fffu + ((bits >> 16) & 1u));
}

// Round away from zero with the probability that 16 random bits give.
OARLOCK_INLINE uint16_t round_randomly(float x, uint32_t random16) { return narrow(to_bits(x), random16); }

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
