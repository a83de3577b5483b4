// Rounding a float32 to a format: what a product takes, and the codes that are kept in memory.
#pragma once

#include "core/kernel.h"
#include "lowp/kernels.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using lowp::Random;

// 16 random bits of element `index` under the key. Mirrored in reference/lowp.py.
OARLOCK_INLINE uint32_t random_bits(uint32_t index, uint32_t key0, uint32_t key1) {
  uint32_t h = index * 0x9e3779b1u + key0;
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) + key1;
  h = (h ^ (h >> 15)) * 0xc2b2ae35u;
  return h >> 16;
}

// To nearest, ties to even, as |y| < 2^22.
OARLOCK_INLINE float nearest(float y) { return (y + 12582912.0f) - 12582912.0f; }

// To a neighbour, up with the probability that leaves the mean: to 2^-17, as the hash has 16 bits.
OARLOCK_INLINE float at_random(float y, uint32_t random) {
  const float near = nearest(y);
  const float below = near > y ? near - 1.0f : near;
  const float chance = (float(int32_t(random)) + 0.5f) * (1.0f / 65536.0f);
  return below + (chance < y - below ? 1.0f : 0.0f);
}

template <bool kRandomly>
OARLOCK_INLINE float whole(float y, uint32_t random) {
  return kRandomly ? at_random(y, random) : nearest(y);
}

struct Fp32 {
  using Code = float;
  template <bool kRandomly>
  static OARLOCK_INLINE float value(float x, uint32_t) { return x; }
  template <bool kRandomly>
  static OARLOCK_INLINE float code(float x, uint32_t) { return x; }
  static OARLOCK_INLINE float decode(float code) { return code; }
};

struct Bf16 {
  using Code = uint16_t;
  template <bool kRandomly>
  static OARLOCK_INLINE uint16_t code(float x, uint32_t random) {
    return kRandomly ? round_randomly(x, random) : round_nearest(x);
  }
  static OARLOCK_INLINE float decode(uint16_t code) { return from_bits(uint32_t(code) << 16); }
  template <bool kRandomly>
  static OARLOCK_INLINE float value(float x, uint32_t random) {
    return decode(code<kRandomly>(x, random));
  }
};

// Sign, exponent and kMantissa bits, with subnormal numbers below 2^kLeast. The codes from kTop on
// are Inf and NaN; kSaturates has NaN only there, and takes the number below for what is too large.
template <typename Bits, int kMantissa, int kLeast, uint32_t kTop, bool kSaturates>
struct Small {
  using Code = Bits;
  static constexpr uint32_t kSign = 1u << (8 * sizeof(Bits) - 1), kExponent = kLeast + 127;

  // The code without sign of a magnitude: whole multiples of the distance of its neighbours.
  template <bool kRandomly>
  static OARLOCK_INLINE uint32_t magnitude(uint32_t bits, uint32_t random) {
    const uint32_t given = bits >> 23, exponent = given > kExponent ? given : kExponent;
    const float scale = from_bits((254u + kMantissa - exponent) << 23);
    const float multiples = whole<kRandomly>(from_bits(bits) * scale, random);
    const uint32_t found = ((exponent - kExponent) << kMantissa) + uint32_t(int32_t(multiples));
    const uint32_t most = kSaturates ? kTop - 1 : kTop;
    const uint32_t finite = found < most ? found : most;
    const uint32_t odd = bits > 0x7f800000u || kSaturates ? kNan : kTop;
    return bits < 0x7f800000u ? finite : odd;
  }
  static constexpr uint32_t kNan = kSaturates ? kTop : kTop + (1u << (kMantissa - 1));

  template <bool kRandomly>
  static OARLOCK_INLINE Bits code(float x, uint32_t random) {
    const uint32_t bits = to_bits(x), sign = (bits >> 31) * kSign;
    return Bits(magnitude<kRandomly>(bits & 0x7fffffffu, random) | sign);
  }
  static OARLOCK_INLINE float decode(Bits code) {
    const uint32_t magnitude = code & (kSign - 1u), sign = code & kSign ? 0x80000000u : 0u;
    const float tiny = from_bits((kExponent - kMantissa) << 23);
    const uint32_t subnormal = to_bits(float(int32_t(magnitude)) * tiny);
    const uint32_t normal = (magnitude << (23 - kMantissa)) + ((kExponent - 1) << 23);
    const uint32_t finite = magnitude < (1u << kMantissa) ? subnormal : normal;
    const uint32_t odd = magnitude > kTop || kSaturates ? 0x7fc00000u : 0x7f800000u;
    return from_bits(sign | (magnitude < kTop ? finite : odd));
  }
  template <bool kRandomly>
  static OARLOCK_INLINE float value(float x, uint32_t random) {
    return decode(code<kRandomly>(x, random));
  }
};

using Fp16 = Small<uint16_t, 10, -14, 0x7c00, false>;
using Fp8E4m3 = Small<uint8_t, 3, -6, 0x7f, true>;
using Fp8E5m2 = Small<uint8_t, 2, -14, 0x7c, false>;

// Whole numbers. What is not in range is NaN times the scale of its row, which is NaN then.
template <typename Bits, int kMost>
struct Whole {
  using Code = Bits;
  template <bool kRandomly>
  static OARLOCK_INLINE Bits code(float x, uint32_t random) {
    if (!kRandomly) return Bits(int32_t(to_bits(x + 12582912.0f) - 0x4b400000u));
    const float y = at_random(x, random), most = float(kMost);
    const float capped = y > most ? most : y;
    return Bits(int32_t(to_bits((capped < -most ? -most : capped) + 12582912.0f) - 0x4b400000u));
  }
  static OARLOCK_INLINE float decode(Bits code) { return float(code); }
  template <bool kRandomly>
  static OARLOCK_INLINE float value(float x, uint32_t random) {
    return decode(code<kRandomly>(x, random));
  }
};

using Int8 = Whole<int8_t, 127>;
using Int16 = Whole<int16_t, 5792>;  // 64 products of two stay in int32

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
