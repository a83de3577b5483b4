// Where along the reduction scales change, and what they are: for the CPU and for CUDA.
#pragma once

#include <cstdint>

#include "core/inline.h"
#include "lowp/kernels.h"

namespace oarlock::lowp {

OARLOCK_INLINE std::int64_t divided_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Groups that a product reads of one row at a time, and where along them scales change.
struct Depth {
  std::int64_t elements;  // along the reduction
  std::int64_t groups;
  std::int64_t block;     // elements that share a scale
  std::int64_t blocks;

  Depth(std::int64_t elements, Unit unit, std::int64_t block)
      : elements(elements),
        groups(divided_up(elements, per_group(unit))),
        block(block > 0 && block < elements ? block : elements > 1 ? elements : 1),
        blocks(elements > this->block ? divided_up(elements, this->block) : 1) {}

  // Elements that a sum takes before it is scaled: a whole part of a block, or all of one block, at
  // most `most`; 0 for any number.
  std::int64_t interval(std::int64_t most) const {
    if (most == 0 || block <= most) return block;
    return blocks == 1 || block % most == 0 ? most : 32;
  }
};

// Products of two codes whose sum int32 surely holds.
constexpr std::int64_t kInt8Sums = 1 << 17, kInt16Sums = 64;

// What the largest magnitude of a vector becomes; 0 for formats without scales.
OARLOCK_INLINE float largest_code(Format format) {
  switch (format) {
    case Format::int8: return 127.0f;
    case Format::int16: return 5792.0f;
    case Format::fp8_e4m3: return 448.0f;
    case Format::fp8_e5m2: return 57344.0f;
    default: return 0.0f;
  }
}

inline bool has_scales(Format format) { return largest_code(format) > 0; }

// Vectors smaller than this are scaled as if they were of this size, so that no scale is 0.
constexpr float kLeastMagnitude = 0x1p-100f;

// Scale of a row or block whose largest magnitude has these bits; NaN if that is not finite.
// `inverse` is what its elements are multiplied by before they are rounded.
OARLOCK_INLINE float scale_of(Format format, std::uint32_t most, float* inverse) {
  if (most >= 0x7f800000u) {
    *inverse = 0;
    return __builtin_bit_cast(float, 0x7fc00000u);
  }
  const float magnitude = __builtin_bit_cast(float, most), code = largest_code(format);
  const float kept = magnitude > kLeastMagnitude ? magnitude : kLeastMagnitude;
  *inverse = code / kept;
  return kept / code;
}

}  // namespace oarlock::lowp
