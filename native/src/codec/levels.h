// The levels of codes of 8, 4 and 2 bits, and their packing.
//
// 8 and 4 bits have a level at 0: q in -127..127 or -7..7, as two's complement. 2 bits have none: code
// c in 0..3 is 2 c - 3, that is -3, -1, 1 or 3. A value is its level times the scale of its block.
#pragma once

#include "codec/bytes.h"

namespace oarlock::OARLOCK_PATH {
namespace {

// To nearest, ties to even, as |y| < 2^22.
OARLOCK_ALWAYS_INLINE floats nearest(floats y) { return (y + 12582912.0f) - 12582912.0f; }

// To a neighbour, up if the part above the lower one exceeds `random` in [0, 1).
OARLOCK_ALWAYS_INLINE floats at_random(floats y, floats random) {
  const floats near = nearest(y);
  const floats below = near > y ? near - 1.0f : near;
  return random < y - below ? below + 1.0f : below;
}

template <int kBits>
struct Levels {
  static constexpr int32_t kMost = kBits == 8 ? 127 : kBits == 4 ? 7 : 3;
  static constexpr float kLeastCode = kBits == 2 ? 0.0f : -float(kMost);
  static constexpr int kPerByte = 8 / kBits;

  // What is rounded to get the code.
  static OARLOCK_ALWAYS_INLINE floats place(floats y) {
    if constexpr (kBits == 2) return y * 0.5f + 1.5f;
    return y;
  }
  static OARLOCK_ALWAYS_INLINE floats within(floats code) {
    const floats capped = code > float(kMost) ? all(float(kMost)) : code;
    return capped < kLeastCode ? all(kLeastCode) : capped;
  }
  static OARLOCK_ALWAYS_INLINE floats level(floats code) {
    if constexpr (kBits == 2) return code * 2.0f - 3.0f;
    return code;
  }
  // The code in a byte of its own as a number.
  static OARLOCK_ALWAYS_INLINE floats number(ints byte) {
    if constexpr (kBits == 4) byte = (byte ^ 8) - 8;
    return __builtin_convertvector(byte, floats);
  }

  // `count` codes, of which each has a byte, to those of memory; the first ones take the low bits.
  static void pack(const uint8_t* __restrict bytes, int64_t count, uint8_t* __restrict out) {
    const int64_t whole = count / kPerByte;
    for (int64_t i = 0; i < whole; ++i) {
      if constexpr (kBits == 8) out[i] = bytes[i];
      if constexpr (kBits == 4) {
        const auto two = load_as<uint16_t>(bytes + 2 * i);
        out[i] = uint8_t((two & 15) | ((two >> 4) & 0xf0));
      }
      if constexpr (kBits == 2) {
        const auto four = load_as<uint32_t>(bytes + 4 * i);
        out[i] = uint8_t(four | four >> 6 | four >> 12 | four >> 18);
      }
    }
    if (whole * kPerByte == count) return;
    int last = 0;
    for (int64_t i = whole * kPerByte; i < count; ++i)
      last |= (bytes[i] & ((1 << kBits) - 1)) << (i % kPerByte * kBits);
    out[whole] = uint8_t(last);
  }

  static void unpack(const uint8_t* __restrict in, int64_t count, uint8_t* __restrict bytes) {
    const int64_t whole = (count + kPerByte - 1) / kPerByte;
    for (int64_t i = 0; i < whole; ++i) {
      const uint32_t code = in[i];
      if constexpr (kBits == 8) bytes[i] = in[i];
      if constexpr (kBits == 4) store_as(bytes + 2 * i, uint16_t((code | code << 4) & 0x0f0f));
      if constexpr (kBits == 2)
        store_as(bytes + 4 * i, (code | code << 6 | code << 12 | code << 18) & 0x03030303u);
    }
  }
};

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
