// Products with a panel: sums of a few rows in registers, a block of weights at a time.
//
// For each row and output, sums of 32 products of integers are exact; they are scaled and added one group
// after the other. So the bits do not depend on how many rows there are.

#include "core/vectors.h"
#include "quant/kernels.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using namespace quant;

// Outputs whose sums are in registers at a time: a part of a panel.
constexpr int kVectors = 2;
constexpr int kPart = kVectors * kLanes;

struct Sums {
  floats of[kVectors];
};

// Which rows a tile has: three share a pointer, as the processor can add 0, 1 or 2 strides by itself.
template <typename T, int kRows>
struct Pointers {
  const T* third[(kRows + 2) / 3];
  int64_t stride;

  OARLOCK_ALWAYS_INLINE Pointers(const T* first, int64_t stride) : stride(stride) {
#pragma GCC unroll 8
    for (int i = 0; i < (kRows + 2) / 3; ++i) third[i] = first + 3 * i * stride;
  }
  OARLOCK_ALWAYS_INLINE const T* row(int r) const { return third[r / 3] + r % 3 * stride; }
  OARLOCK_ALWAYS_INLINE void advance(int64_t by) {
#pragma GCC unroll 8
    for (int i = 0; i < (kRows + 2) / 3; ++i) third[i] += by;
  }
};

OARLOCK_ALWAYS_INLINE Sums load_scales(const uint16_t* p) {
  Sums s;
#if defined(OARLOCK_PATH_avx512)
  for (int v = 0; v < kVectors; ++v) s.of[v] = _mm512_cvtph_ps(load_as<__m256i>(p + v * kLanes));
#elif defined(OARLOCK_PATH_avx2)
  for (int v = 0; v < kVectors; ++v) s.of[v] = _mm256_cvtph_ps(load_as<__m128i>(p + v * kLanes));
#else
  for (int v = 0; v < kVectors; ++v)
    for (int i = 0; i < kLanes; ++i) {
      const uint32_t half = p[v * kLanes + i];  // finite
      const float magnitude = from_bits((half & 0x7fffu) << 13) * 0x1p112f;
      s.of[v][i] = half & 0x8000u ? -magnitude : magnitude;
    }
#endif
  return s;
}

// Integers of a part's outputs.
struct Counts {
  ints of[kVectors];
};

// Four bytes of each output.
struct Quads {
  words of[kVectors];
};

OARLOCK_ALWAYS_INLINE Quads load_quads(const uint8_t* p) {
  Quads q;
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) q.of[v] = load_as<words>(p + 4 * kLanes * v);
  return q;
}

// Codes less kZero, times those of a row: the sum of four products for each output.
template <int kZero>
struct Signed {
  static constexpr bool kOffset = false;

  static OARLOCK_ALWAYS_INLINE void add(Counts& sums, const Quads& quads, const int8_t* row) {
    uint32_t four;
    __builtin_memcpy(&four, row, 4);
#if defined(OARLOCK_PATH_avx2) || defined(OARLOCK_PATH_avx512)
    constexpr int kHalves = sizeof(Quads) / sizeof(__m256i);
    const __m256i x = _mm256_set1_epi32(int32_t(four)), ones = _mm256_set1_epi16(1);
    __m256i given[kHalves], found[kHalves];
    __builtin_memcpy(given, &quads, sizeof given);
#pragma GCC unroll 4
    for (int i = 0; i < kHalves; ++i) {
      const __m256i w = _mm256_sub_epi8(given[i], _mm256_set1_epi8(char(kZero)));
      // -128 to 127 times -127 to 127: two of them fit 16 bits.
      const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
      found[i] = _mm256_madd_epi16(pairs, ones);
    }
    Counts more;
    __builtin_memcpy(&more, found, sizeof more);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums.of[v] += more.of[v];
#else
    for (int v = 0; v < kVectors; ++v)
      for (int byte = 0; byte < 4; ++byte) {
        const ints w = (ints)((quads.of[v] >> (8 * byte)) & all(0xffu)) - all(int32_t(kZero));
        sums.of[v] += w * all(int32_t(row[byte]));
      }
#endif
  }
};

#if defined(OARLOCK_PATH_avx512)
// The same of codes as they are, which the start of the sums makes up for. As text, so that no other function
// of this file may use the instruction.
struct Unsigned {
  static constexpr bool kOffset = true;

  static OARLOCK_ALWAYS_INLINE void add(Counts& sums, const Quads& quads, const int8_t* row) {
    uint32_t four;
    __builtin_memcpy(&four, row, 4);
    const words x = all(four);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      __asm__("vpdpbusd %2, %1, %0" : "+v"(sums.of[v]) : "v"(quads.of[v]), "v"(x));
  }
};
#endif

struct Bytes {
  static constexpr Format kFormat = Format::int8;
  static constexpr int kZero = 128;
  static constexpr int64_t kGroupBytes = kGroup * kWidth;
  // Inputs 8 p to 8 p + 3 and 8 p + 4 to 8 p + 7 of a group.
  static OARLOCK_ALWAYS_INLINE void load(const uint8_t* group, int p, Quads& first, Quads& second) {
    first = load_quads(group + 2 * p * 4 * kWidth);
    second = load_quads(group + (2 * p + 1) * 4 * kWidth);
  }
};

struct WidenedNibbles : Bytes {
  static constexpr int kZero = 8;
};

struct Nibbles {
  static constexpr Format kFormat = Format::int4;
  static constexpr int kZero = 8;
  static constexpr int64_t kGroupBytes = kGroup * kWidth / 2;
  static OARLOCK_ALWAYS_INLINE void load(const uint8_t* group, int p, Quads& first, Quads& second) {
    const Quads both = load_quads(group + p * 4 * kWidth);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      first.of[v] = both.of[v] & all(0x0f0f0f0fu);
      second.of[v] = (both.of[v] >> 4) & all(0x0f0f0f0fu);
    }
  }
};

// Sums of a tile of rows: zero at `first`, else what `out` holds.
template <int kRows>
OARLOCK_ALWAYS_INLINE void begin(Sums (&sums)[kRows], const float* out, bool first) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      sums[r].of[v] = first ? floats{} : load_floats(out + r * kWidth + v * kLanes);
}

template <int kRows>
OARLOCK_ALWAYS_INLINE void end(const Sums (&sums)[kRows], float* out) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      store_floats(out + r * kWidth + v * kLanes, sums[r].of[v]);
}

// `part`: from which output of the panel on.
template <typename Codes, typename Arithmetic, int kRows>
void integer_tile(const Rows& x, const void* panel, int part, int64_t inputs, bool first,
                  float* out) {
  const int64_t blocks = blocks_of(inputs);
  const uint8_t* block = static_cast<const uint8_t*>(panel);
  Pointers<int8_t, kRows> codes(x.codes, x.code_stride);
  Pointers<float, kRows> scales(x.scales, x.group_stride);
  Pointers<int32_t, kRows> group_sums(x.sums, x.group_stride);
  Sums sums[kRows];
  begin(sums, out, first);
  for (int64_t b = 0; b < blocks; ++b) {
    const uint8_t* group = block + kScaleBytes + 4 * part;
#pragma GCC unroll 2
    for (int g = 0; g < 2; ++g) {
      Counts counts[kRows];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const ints start = Arithmetic::kOffset
                               ? all(-int32_t(Codes::kZero) * group_sums.row(r)[g])
                               : ints{};
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) counts[r].of[v] = start;
      }
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) {
        Quads quads[2];
        Codes::load(group, p, quads[0], quads[1]);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r)
          Arithmetic::add(counts[r], quads[0], codes.row(r) + 8 * p);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r)
          Arithmetic::add(counts[r], quads[1], codes.row(r) + 8 * p + 4);
      }
      const Sums weight_scales =
          load_scales(reinterpret_cast<const uint16_t*>(block) + g * kWidth + part);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const floats scale = all(scales.row(r)[g]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v)
          sums[r].of[v] = multiply_add(__builtin_convertvector(counts[r].of[v], floats),
                                       weight_scales.of[v] * scale, sums[r].of[v]);
      }
      codes.advance(kGroup);
      group += Codes::kGroupBytes;
    }
    scales.advance(2);
    group_sums.advance(2);
    block += block_bytes(Codes::kFormat);
  }
  end(sums, out);
}

OARLOCK_ALWAYS_INLINE floats load_weights(const float* p) { return load_floats(p); }
OARLOCK_ALWAYS_INLINE floats load_weights(const bfloat16* p) {
  typedef uint16_t halves __attribute__((vector_size(2 * kLanes)));
  return __builtin_bit_cast(floats, __builtin_convertvector(load_as<halves>(p), words) << 16);
}

template <typename T, int kRows>
void float_tile(const Rows& x, const void* panel, int part, int64_t inputs, bool first,
                float* out) {
  const T* weights = static_cast<const T*>(panel) + part;
  Pointers<float, kRows> values(x.values, x.stride);
  Sums sums[kRows];
  begin(sums, out, first);
  for (int64_t k = 0; k < inputs; ++k) {
    floats w[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) w[v] = load_weights(weights + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const floats one = all(*values.row(r));
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
        sums[r].of[v] = multiply_add(one, w[v], sums[r].of[v]);
    }
    values.advance(1);
    weights += kWidth;
  }
  end(sums, out);
}

template <typename T>
struct FloatTile {
  template <int kRows>
  static OARLOCK_ALWAYS_INLINE void run(const Rows& x, const void* panel, int part, int64_t inputs,
                                        bool first, float* out) {
    float_tile<T, kRows>(x, panel, part, inputs, first, out);
  }
};

template <typename Codes, typename Arithmetic>
struct IntegerTile {
  template <int kRows>
  static OARLOCK_ALWAYS_INLINE void run(const Rows& x, const void* panel, int part, int64_t inputs,
                                        bool first, float* out) {
    integer_tile<Codes, Arithmetic, kRows>(x, panel, part, inputs, first, out);
  }
};

// Rows that registers hold at once.
#if defined(OARLOCK_PATH_avx512)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 3;
#endif

Rows rows_from(const Rows& x, int64_t row) {
  return {x.values + row * x.stride,      x.stride, x.codes + row * x.code_stride, x.code_stride,
          x.scales + row * x.group_stride, x.sums + row * x.group_stride, x.group_stride};
}

template <typename Tile>
void product(const Rows& x, int64_t rows, const void* panel, int64_t inputs, bool first,
             float* sums) {
  for (int64_t row = 0; row < rows;) {
    const Rows some = rows_from(x, row);
    const int64_t left = rows - row, count = left < kTileRows ? left : kTileRows;
    for (int part = 0; part < kWidth; part += kPart) {
      float* const out = sums + row * kWidth + part;
      switch (count) {
        case 1: Tile::template run<1>(some, panel, part, inputs, first, out); break;
        case 2: Tile::template run<2>(some, panel, part, inputs, first, out); break;
        case 3: Tile::template run<3>(some, panel, part, inputs, first, out); break;
#if defined(OARLOCK_PATH_avx512)
        case 4: Tile::template run<4>(some, panel, part, inputs, first, out); break;
        case 5: Tile::template run<5>(some, panel, part, inputs, first, out); break;
        default: Tile::template run<6>(some, panel, part, inputs, first, out); break;
#endif
      }
    }
    row += count;
  }
}

void widen(const void* panel, int64_t blocks, void* out) {
  const uint8_t* from = static_cast<const uint8_t*>(panel);
  uint8_t* to = static_cast<uint8_t*>(out);
  for (int64_t b = 0; b < blocks; ++b) {
    __builtin_memcpy(to, from, kScaleBytes);
    const uint8_t* group = from + kScaleBytes;
    uint8_t* wide = to + kScaleBytes;
    for (int g = 0; g < 2; ++g) {
      for (int p = 0; p < 4; ++p)
        for (int part = 0; part < kWidth; part += kPart) {
          Quads quads[2];
          Nibbles::load(group + 4 * part, p, quads[0], quads[1]);
          uint8_t* const at = wide + 2 * p * 4 * kWidth + 4 * part;
          __builtin_memcpy(at, &quads[0], sizeof quads[0]);
          __builtin_memcpy(at + 4 * kWidth, &quads[1], sizeof quads[1]);
        }
      group += Nibbles::kGroupBytes;
      wide += Bytes::kGroupBytes;
    }
    from += block_bytes(Format::int4);
    to += block_bytes(Format::int8);
  }
}

// To nearest, ties to even, as |y| < 2^22.
OARLOCK_INLINE float nearest(float y) { return (y + 12582912.0f) - 12582912.0f; }

void encode(const float* x, int64_t inputs, int8_t* codes, float* scales, int32_t* sums) {
  const int64_t groups = blocks_of(inputs) * 2;
  for (int64_t g = 0; g < groups; ++g, codes += kGroup) {
    float values[kGroup];
    const int64_t left = inputs - g * kGroup, given = left < 0 ? 0 : left < kGroup ? left : kGroup;
    for (int64_t i = 0; i < given; ++i) values[i] = x[g * kGroup + i];
    for (int64_t i = given; i < kGroup; ++i) values[i] = 0;
    uint32_t most = 0;  // as bits, of which those of NaN are the largest
    for (int i = 0; i < kGroup; ++i) {
      const uint32_t bits = to_bits(values[i]) & 0x7fffffffu;
      most = bits > most ? bits : most;
    }
    const float largest = from_bits(most);
    // Of tiny groups the inverse would not be finite; NaN and Inf stay in the scale.
    const bool rounds = largest > 0x1p-100f && most < 0x7f800000u;
    const float inverse = rounds ? 127.0f / largest : 0.0f;
    int32_t sum = 0;
    for (int i = 0; i < kGroup; ++i) {
      const float y = rounds ? values[i] * inverse : 0.0f;
      const int32_t code = int32_t(nearest(y));
      codes[i] = int8_t(code);
      sum += code;
    }
    scales[g] = largest * (1.0f / 127.0f);
    sums[g] = sum;
  }
}

template <typename Codes>
constexpr Product base_product = product<IntegerTile<Codes, Signed<Codes::kZero>>>;
#if defined(OARLOCK_PATH_avx512)
template <typename Codes>
constexpr Product more_product = product<IntegerTile<Codes, Unsigned>>;
#else
template <typename Codes>
constexpr Product more_product = base_product<Codes>;
#endif

}  // namespace

extern const quant::Kernels quant_kernels;
const quant::Kernels quant_kernels = {
    encode,
    widen,
    {product<FloatTile<float>>, product<FloatTile<bfloat16>>, base_product<Bytes>,
     base_product<Nibbles>},
    {product<FloatTile<float>>, product<FloatTile<bfloat16>>, more_product<Bytes>,
     more_product<Nibbles>},
    base_product<WidenedNibbles>,
    more_product<WidenedNibbles>,
};

}  // namespace oarlock::OARLOCK_PATH
