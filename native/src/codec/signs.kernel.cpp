// Signs, a bit each (1 for what is negative), with the mean magnitude of each block as its scale.

#include "codec/bytes.h"
#include "codec/kernels.h"
#include "codec/lane_sum.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using codec::Blocks;

constexpr int kRegisters = kSumLanes / kLanes;

// The mean magnitude; NaN if one is not finite.
float mean_magnitude(const float* x, int64_t n) {
  doubles lanes[kSumRegisters] = {};
  floats group[kRegisters];
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes) {
    for (int j = 0; j < kRegisters; ++j)
      group[j] = (floats)magnitudes(load_floats(x + i + j * kLanes));
    add_lanes(group, lanes);
  }
  if (i < n) {
    float rest[kSumLanes] = {};
    for (int64_t j = i; j < n; ++j) rest[j - i] = x[j];
    for (int j = 0; j < kRegisters; ++j)
      group[j] = (floats)magnitudes(load_floats(rest + j * kLanes));
    add_lanes(group, lanes);
  }
  const double mean = total(lanes) / double(n);
  return mean < __builtin_inf() ? float(mean) : from_bits(kQuietNan);
}

// The sign bits of the lanes.
OARLOCK_ALWAYS_INLINE uint32_t signs_of(floats x) {
#if defined(OARLOCK_PATH_avx512)
  return _mm512_movepi32_mask((__m512i)x);
#elif defined(OARLOCK_PATH_avx2)
  return uint32_t(_mm256_movemask_ps(x));
#else
  return uint32_t(sum((ints)(((words)x >> 31) << lane_numbers())));
#endif
}

// The sign bit in the lanes that have a bit.
OARLOCK_ALWAYS_INLINE words as_signs(uint32_t bits) {
#if defined(OARLOCK_PATH_avx512)
  return (words)_mm512_maskz_set1_epi32(__mmask16(bits), int32_t(0x80000000u));
#else
  const words own = all(1u) << lane_numbers();
  return (words)((all(bits) & own) == own) & 0x80000000u;
#endif
}

OARLOCK_ALWAYS_INLINE floats with_signs(words signs, floats scale) {
  return (floats)((words)scale ^ signs);
}

// Up to 16 elements; returns their signs.
template <bool kKeep>
OARLOCK_ALWAYS_INLINE uint32_t encode_group(float* x, floats scale) {
  uint32_t bits = 0;
  for (int j = 0; j < kRegisters; ++j) {
    const floats here = load_floats(x + j * kLanes);
    bits |= signs_of(here) << (j * kLanes);
    if (kKeep)
      store_floats(x + j * kLanes, here - with_signs((words)here & 0x80000000u, scale));
  }
  return bits;
}

template <bool kKeep>
void encode_block(float* x, int64_t n, float mean, uint8_t* bits) {
  const floats scale = all(mean);
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes)
    store_as(bits + i / 8, uint16_t(encode_group<kKeep>(x + i, scale)));
  if (i < n) {
    float rest[kSumLanes] = {};
    for (int64_t j = i; j < n; ++j) rest[j - i] = x[j];
    const uint32_t last = encode_group<kKeep>(rest, scale);
    for (int64_t j = i; j < n; j += 8) bits[j / 8] = uint8_t(last >> (j - i));
    for (int64_t j = i; kKeep && j < n; ++j) x[j] = rest[j - i];
  }
  if (!kKeep || mean == mean) return;
  for (i = 0; i < n; ++i) x[i] = mean;  // all of them alike
}

template <bool kKeep>
void encode(float* x, const Blocks& blocks, uint8_t* bits, float* scales) {
  for (int64_t begin = 0, b = 0; begin < blocks.n; begin += blocks.block, ++b) {
    const int64_t size = blocks.n - begin < blocks.block ? blocks.n - begin : blocks.block;
    scales[b] = mean_magnitude(x + begin, size);
    encode_block<kKeep>(x + begin, size, scales[b], bits + begin / 8);
  }
}

template <bool kAdd>
OARLOCK_ALWAYS_INLINE void decode(const uint8_t* bits, const float* scales, const Blocks& blocks,
                                  float weight, float* out) {
  constexpr uint32_t kOwn = (1u << kLanes) - 1;
  for (int64_t begin = 0, b = 0; begin < blocks.n; begin += blocks.block, ++b) {
    const int64_t size = blocks.n - begin < blocks.block ? blocks.n - begin : blocks.block;
    const floats scale = all(weight * scales[b]);
    const uint8_t* const from = bits + begin / 8;
    float* const to = out + begin;
    int64_t i = 0;
    for (; i + kSumLanes <= size; i += kSumLanes) {
      const uint32_t group = load_as<uint16_t>(from + i / 8);
      for (int j = 0; j < kRegisters; ++j) {
        float* const here = to + i + j * kLanes;
        const words signs = as_signs(group >> (j * kLanes) & kOwn);
        const floats value = with_signs(signs, scale);
        store_floats(here, kAdd ? load_floats(here) + value : value);
      }
    }
    for (; i < size; ++i) {
      const uint32_t sign = uint32_t(from[i / 8]) >> (i % 8) << 31;
      const float value = from_bits(to_bits(weight * scales[b]) ^ sign);
      to[i] = kAdd ? to[i] + value : value;
    }
  }
}

void add(const uint8_t* bits, const float* scales, const Blocks& blocks, float weight, float* out) {
  decode<true>(bits, scales, blocks, weight, out);
}

void write(const uint8_t* bits, const float* scales, const Blocks& blocks, float* out) {
  decode<false>(bits, scales, blocks, 1.0f, out);
}

}  // namespace

extern const codec::SignKernels codec_sign_kernels;
const codec::SignKernels codec_sign_kernels = {{encode<false>, encode<true>}, add, write};

}  // namespace oarlock::OARLOCK_PATH
