// Codes of 8, 4 and 2 bits with a scale for each block, from its largest magnitude.

#include "codec/hash.h"
#include "codec/kernels.h"
#include "codec/levels.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using codec::Blocks;

constexpr int64_t kPiece = 2048;  // codes that wait for being packed, each in a byte

struct Scale {
  float scale, inverse;
};

// NaN where the largest magnitude is not finite, 0 where it is below 2^-100.
OARLOCK_ALWAYS_INLINE Scale scale_of(int32_t most, float largest_level) {
  if (most >= 0x7f800000) return {from_bits(kQuietNan), 0.0f};
  const float magnitude = from_bits(uint32_t(most));
  if (magnitude < 0x1p-100f) return {0.0f, 0.0f};
  return {magnitude / largest_level, largest_level / magnitude};
}

int32_t largest_magnitude(const float* x, int64_t n) {
  ints most[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int j = 0; j < 4; ++j)
      most[j] = larger(most[j], magnitudes(load_floats(x + i + j * kLanes)));
  for (; i + kLanes <= n; i += kLanes) most[0] = larger(most[0], magnitudes(load_floats(x + i)));
  if (i < n) most[1] = larger(most[1], magnitudes(load_part(x + i, n - i)));
  return largest(larger(larger(most[0], most[1]), larger(most[2], most[3])));
}

template <int kBits, bool kRandomly>
OARLOCK_ALWAYS_INLINE floats code_of(floats x, float inverse, words index, BlockKey key) {
  const floats place = Levels<kBits>::place(x * inverse);
  return Levels<kBits>::within(kRandomly ? at_random(place, uniform(index, key)) : nearest(place));
}

// Elements [begin, end) of a block, its codes in a byte each; room for a whole register beyond them.
template <int kBits, bool kRandomly, bool kKeep>
void encode_piece(float* x, int64_t begin, int64_t end, Scale scale, BlockKey key, uint8_t* bytes) {
  const words lanes = lane_numbers();
  const auto code = [&](floats value, int64_t i) {
    const words index = lanes + uint32_t(i);
    const floats found = code_of<kBits, kRandomly>(value, scale.inverse, index, key);
    store_bytes(bytes + (i - begin), __builtin_convertvector(found, ints));
    return value - Levels<kBits>::level(found) * scale.scale;  // what stays
  };
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    const floats rest = code(load_floats(x + i), i);
    if (kKeep) store_floats(x + i, rest);
  }
  if (i == end) return;
  const floats rest = code(load_part(x + i, end - i), i);
  if (kKeep) store_part(x + i, rest, end - i);
}

// The same for a block whose scale is NaN.
template <bool kKeep>
void encode_undefined(float* x, int64_t begin, int64_t end, uint8_t* bytes) {
  for (int64_t i = begin; i < end; ++i) {
    bytes[i - begin] = 0;
    if (kKeep) x[i] = from_bits(kQuietNan);
  }
}

template <int kBits, bool kRandomly, bool kKeep>
void encode_part(float* x, int64_t begin, int64_t end, Scale scale, BlockKey key, uint8_t* bytes) {
  if (scale.scale == scale.scale)
    encode_piece<kBits, kRandomly, kKeep>(x, begin, end, scale, key, bytes);
  else
    encode_undefined<kKeep>(x, begin, end, bytes);
}

template <int kBits, bool kRandomly, bool kKeep>
void encode(float* x, const Blocks& blocks, uint8_t* codes, float* scales) {
  constexpr auto encode_one = encode_part<kBits, kRandomly, kKeep>;
  uint8_t bytes[kPiece + kLanes];
  int64_t waiting = 0;  // codes in `bytes`
  for (int64_t begin = 0, b = 0; begin < blocks.n; begin += blocks.block, ++b) {
    const int64_t size = blocks.n - begin < blocks.block ? blocks.n - begin : blocks.block;
    const Scale scale = scale_of(largest_magnitude(x + begin, size), float(Levels<kBits>::kMost));
    const BlockKey key = kRandomly ? block_key(blocks.key, blocks.first + b) : BlockKey{};
    scales[b] = scale.scale;
    if (kBits == 8 && size % kLanes == 0) {
      encode_one(x + begin, 0, size, scale, key, codes);
      codes += size;
      continue;
    }
    for (int64_t i = 0; i < size;) {
      const int64_t room = kPiece - waiting, end = size - i < room ? size : i + room;
      encode_one(x + begin, i, end, scale, key, bytes + waiting);
      waiting += end - i;
      i = end;
      if (waiting < kPiece && kBits != 8) continue;
      Levels<kBits>::pack(bytes, waiting, codes);
      codes += waiting / Levels<kBits>::kPerByte;
      waiting = 0;
    }
  }
  Levels<kBits>::pack(bytes, waiting, codes);
}

template <int kBits, bool kAdd>
OARLOCK_ALWAYS_INLINE void decode(const uint8_t* codes, const float* scales, const Blocks& blocks,
                                  float weight, float* out) {
  constexpr int kPerByte = Levels<kBits>::kPerByte;
  uint8_t bytes[kPiece + kLanes];
  for (int64_t begin = 0, b = 0; begin < blocks.n; begin += blocks.block, ++b) {
    const int64_t size = blocks.n - begin < blocks.block ? blocks.n - begin : blocks.block;
    const float scale = scales[b];
    for (int64_t i = 0; i < size;) {
      const int64_t end = size - i < kPiece ? size : i + kPiece;
      const uint8_t* from = codes + (begin + i) / kPerByte;
      if (kBits != 8 || end % kLanes != 0) {
        Levels<kBits>::unpack(from, end - i, bytes);
        from = bytes;
      }
      const auto value = [&](int64_t at) {
        const floats code = Levels<kBits>::number(load_bytes(from + at));
        return weight * (Levels<kBits>::level(code) * scale);
      };
      float* const to = out + begin + i;
      const int64_t n = end - i;
      int64_t j = 0;
      for (; j + kLanes <= n; j += kLanes)
        store_floats(to + j, kAdd ? load_floats(to + j) + value(j) : value(j));
      if (j < n) store_part(to + j, kAdd ? load_part(to + j, n - j) + value(j) : value(j), n - j);
      i = end;
    }
  }
}

template <int kBits>
void add(const uint8_t* codes, const float* scales, const Blocks& blocks, float weight, float* out) {
  decode<kBits, true>(codes, scales, blocks, weight, out);
}

template <int kBits>
void write(const uint8_t* codes, const float* scales, const Blocks& blocks, float* out) {
  decode<kBits, false>(codes, scales, blocks, 1.0f, out);
}

}  // namespace

extern const codec::BlockKernels codec_block_kernels;
const codec::BlockKernels codec_block_kernels = {
    {{{encode<8, false, false>, encode<8, false, true>},
      {encode<8, true, false>, encode<8, true, true>}},
     {{encode<4, false, false>, encode<4, false, true>},
      {encode<4, true, false>, encode<4, true, true>}},
     {{encode<2, false, false>, encode<2, false, true>},
      {encode<2, true, false>, encode<2, true, true>}}},
    {add<8>, add<4>, add<2>},
    {write<8>, write<4>, write<2>},
};

}  // namespace oarlock::OARLOCK_PATH
