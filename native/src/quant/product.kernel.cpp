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
constexpr int64_t kAhead = 4096;  // bytes of weights that are asked for before they are needed

struct Sums {
  floats of[kVectors];
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
  static constexpr bool kFromMemory = true;  // else just written
  static constexpr int64_t kGroupBytes = kGroup * kWidth;
  // Inputs 8 p to 8 p + 3 and 8 p + 4 to 8 p + 7 of a group.
  static OARLOCK_ALWAYS_INLINE void load(const uint8_t* group, int p, Quads& first, Quads& second) {
    first = load_quads(group + 2 * p * 4 * kWidth);
    second = load_quads(group + (2 * p + 1) * 4 * kWidth);
  }
};

struct WidenedNibbles : Bytes {
  static constexpr int kZero = 8;
  static constexpr bool kFromMemory = false;
};

struct Nibbles {
  static constexpr Format kFormat = Format::int4;
  static constexpr int kZero = 8;
  static constexpr bool kFromMemory = true;
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

// Sums of a tile of rows: zero at the `start`, else what `out` holds.
template <int kRows>
OARLOCK_ALWAYS_INLINE void begin(Sums (&sums)[kRows], const float* out, bool start) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      sums[r].of[v] = start ? floats{} : load_floats(out + r * kWidth + v * kLanes);
}

template <int kRows>
OARLOCK_ALWAYS_INLINE void end(const Sums (&sums)[kRows], float* out) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      store_floats(out + r * kWidth + v * kLanes, sums[r].of[v]);
}

// The processor's read-ahead alone leaves a third of the memory's speed unused.
template <int64_t kBytes>
OARLOCK_ALWAYS_INLINE void ask_for(const void* p) {
#pragma GCC unroll 32
  for (int64_t at = 0; at < kBytes; at += 64)
    __builtin_prefetch(static_cast<const char*>(p) + kAhead + at);
}

// `part`: from which output of the panel on.
template <typename Codes, typename Arithmetic, int kRows>
void integer_tile(const Group* rows, const void* panel, int part, int64_t inputs, bool start,
                  float* out) {
  constexpr int64_t kBytes = block_bytes(Codes::kFormat);
  const uint8_t* block = static_cast<const uint8_t*>(panel);
  Sums sums[kRows];
  begin(sums, out, start);
  for (int64_t k = 0; k < inputs; k += kBlock, block += kBytes) {
    const uint8_t* codes = block + kScaleBytes + 4 * part;
#pragma GCC unroll 2
    for (int g = 0; g < 2; ++g, codes += Codes::kGroupBytes, rows += kRows) {
      if constexpr (Codes::kFromMemory) ask_for<kBytes / 2>(block + g * (kBytes / 2));
      Counts counts[kRows];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const ints first = Arithmetic::kOffset ? all(rows[r].start) : ints{};
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) counts[r].of[v] = first;
      }
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) {
        Quads quads[2];
        Codes::load(codes, p, quads[0], quads[1]);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r)
          Arithmetic::add(counts[r], quads[0], rows[r].codes + 8 * p);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r)
          Arithmetic::add(counts[r], quads[1], rows[r].codes + 8 * p + 4);
      }
      const Sums weight_scales =
          load_scales(reinterpret_cast<const uint16_t*>(block) + g * kWidth + part);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const floats scale = all(rows[r].scale);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v)
          sums[r].of[v] = multiply_add(__builtin_convertvector(counts[r].of[v], floats),
                                       weight_scales.of[v] * scale, sums[r].of[v]);
      }
    }
  }
  end(sums, out);
}

OARLOCK_ALWAYS_INLINE floats load_weights(const float* p) { return load_floats(p); }
OARLOCK_ALWAYS_INLINE floats load_weights(const bfloat16* p) {
  typedef uint16_t halves __attribute__((vector_size(2 * kLanes)));
  return __builtin_bit_cast(floats, __builtin_convertvector(load_as<halves>(p), words) << 16);
}

template <typename T, bool kFromMemory, int kRows>
void float_tile(const float* rows, const void* panel, int part, int64_t inputs, bool start,
                float* out) {
  const T* weights = static_cast<const T*>(panel) + part;
  Sums sums[kRows];
  begin(sums, out, start);
  for (int64_t k = 0; k < inputs; ++k, weights += kWidth, rows += kRows) {
    if constexpr (kFromMemory) ask_for<kPart * sizeof(T)>(weights);
    floats w[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) w[v] = load_weights(weights + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const floats one = all(rows[r]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
        sums[r].of[v] = multiply_add(one, w[v], sums[r].of[v]);
    }
  }
  end(sums, out);
}

template <typename T, bool kFromMemory = true>
struct FloatTile {
  using Row = float;
  static constexpr int64_t kInputs = 1;  // of a Row
#if defined(OARLOCK_PATH_avx512) || defined(OARLOCK_PATH_neon)
  static constexpr int kMostRows = 12;
#else
  static constexpr int kMostRows = 6;
#endif

  template <int kRows>
  static OARLOCK_ALWAYS_INLINE void run(const float* rows, const void* panel, int part,
                                        int64_t inputs, bool start, float* out) {
    float_tile<T, kFromMemory, kRows>(rows, panel, part, inputs, start, out);
  }
};

template <typename Codes, typename Arithmetic>
struct IntegerTile {
  using Row = Group;
  static constexpr int64_t kInputs = kGroup;
#if defined(OARLOCK_PATH_avx512)
  static constexpr int kMostRows = 6;
#else
  static constexpr int kMostRows = 3;
#endif

  template <int kRows>
  static OARLOCK_ALWAYS_INLINE void run(const Group* rows, const void* panel, int part,
                                        int64_t inputs, bool start, float* out) {
    integer_tile<Codes, Arithmetic, kRows>(rows, panel, part, inputs, start, out);
  }
};

// `count` rows, from 1 to kRows.
template <typename Tile, int kRows = Tile::kMostRows>
OARLOCK_ALWAYS_INLINE void tile(int64_t count, const typename Tile::Row* rows, const void* panel,
                                int part, int64_t inputs, bool start, float* out) {
  if constexpr (kRows > 1)
    if (count < kRows)
      return tile<Tile, kRows - 1>(count, rows, panel, part, inputs, start, out);
  Tile::template run<kRows>(rows, panel, part, inputs, start, out);
}

template <typename Tile>
void product(const Rows& x, int64_t first_tile, int64_t end_tile, int64_t input,
             const void* panel, int64_t inputs, bool start, float* sums) {
  for (int64_t i = first_tile; i < end_tile; ++i) {
    const int64_t row = x.first_row(i), count = x.first_row(i + 1) - row;
    const char* const packed = static_cast<const char*>(x.packed) + row * x.row_bytes;
    const auto* rows =
        reinterpret_cast<const typename Tile::Row*>(packed) + input / Tile::kInputs * count;
    for (int part = 0; part < kWidth; part += kPart)
      tile<Tile>(count, rows, panel, part, inputs, start, sums + part);
    sums += count * kWidth;
  }
}

void widen_nibbles(const void* panel, int64_t blocks, void* out) {
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

void widen_halves(const void* panel, int64_t blocks, void* out) {
  const bfloat16* from = static_cast<const bfloat16*>(panel);
  float* to = static_cast<float*>(out);
  for (int64_t i = 0; i < blocks * kBlock * kWidth; i += kLanes)
    store_floats(to + i, load_weights(from + i));
}

OARLOCK_ALWAYS_INLINE floats magnitudes(floats x) {
  return __builtin_bit_cast(floats, __builtin_bit_cast(words, x) & all(0x7fffffffu));
}

// A group whose numbers are all there.
OARLOCK_ALWAYS_INLINE void encode_group(const float* x, int32_t zero, Group* out) {
  constexpr int kCount = int(kGroup) / kLanes;
  typedef int8_t bytes __attribute__((vector_size(kLanes)));
  floats values[kCount];
  words most{};  // magnitudes as bits, of which those of NaN are the largest
#pragma GCC unroll 8
  for (int v = 0; v < kCount; ++v) {
    values[v] = load_floats(x + v * kLanes);
    const words bits = __builtin_bit_cast(words, magnitudes(values[v]));
    most = bits > most ? bits : most;
  }
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits = most[i] > bits ? most[i] : bits;
  const float largest = from_bits(bits);
  // Of tiny groups the inverse would not be finite; NaN and Inf stay in the scale.
  const bool rounds = largest > 0x1p-100f && bits < 0x7f800000u;
  const floats inverse = all(rounds ? 127.0f / largest : 0.0f);
  ints sum{};
#pragma GCC unroll 8
  for (int v = 0; v < kCount; ++v) {
    // To nearest, ties to even, as the magnitude is below 2^22.
    const floats y = rounds ? values[v] * inverse : floats{};
    const ints codes = __builtin_convertvector((y + all(12582912.0f)) - all(12582912.0f), ints);
    store_as(out->codes + v * kLanes, __builtin_convertvector(codes, bytes));
    sum += codes;
  }
  int32_t total = 0;
  for (int i = 0; i < kLanes; ++i) total += sum[i];
  out->scale = largest * (1.0f / 127.0f);
  out->start = -zero * total;
}

void encode(const float* x, int64_t stride, int64_t rows, int64_t inputs, int32_t zero,
            Group* out) {
  const int64_t groups = blocks_of(inputs) * (kBlock / kGroup);
  for (int64_t r = 0; r < rows; ++r, x += stride, ++out)
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t left = inputs - g * kGroup;
      if (left >= kGroup) {
        encode_group(x + g * kGroup, zero, out + g * rows);
        continue;
      }
      float some[kGroup] = {};
      for (int64_t i = 0; i < left; ++i) some[i] = x[g * kGroup + i];
      encode_group(some, zero, out + g * rows);
    }
}

void gather(const float* x, int64_t stride, int64_t rows, int64_t inputs, float* out) {
  if (rows == 1) {
    __builtin_memcpy(out, x, inputs * sizeof(float));
    return;
  }
  for (int64_t k = 0; k < inputs; ++k, out += rows)
    for (int64_t r = 0; r < rows; ++r) out[r] = x[r * stride + k];
}

void write(const float* sums, int64_t rows, int64_t columns, const float* bias, bool accumulate,
           float* out, int64_t stride) {
  constexpr int64_t kRowsAhead = 12;  // whose lines are asked for, as they are far apart
  for (int64_t r = 0; r < rows; ++r, sums += kWidth, out += stride) {
    if (r + kRowsAhead < rows)
      for (int64_t c = 0; c < columns; c += 16)
        __builtin_prefetch(out + kRowsAhead * stride + c, 1);
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) {
      floats sum = load_floats(sums + c);
      if (bias != nullptr) sum += load_floats(bias + c);
      store_floats(out + c, accumulate ? load_floats(out + c) + sum : sum);
    }
    for (; c < columns; ++c) {
      const float sum = bias != nullptr ? sums[c] + bias[c] : sums[c];
      out[c] = accumulate ? out[c] + sum : sum;
    }
  }
}

template <typename T, bool kFromMemory = true>
constexpr Products float_products{product<FloatTile<T, kFromMemory>>,
                                  product<FloatTile<T, kFromMemory>>};

template <typename Codes>
using Plain = IntegerTile<Codes, Signed<Codes::kZero>>;

template <typename Codes>
constexpr Products integer_products{product<Plain<Codes>>,
#if defined(OARLOCK_PATH_avx512)
                                    product<IntegerTile<Codes, Unsigned>>};
#else
                                    product<Plain<Codes>>};
#endif

}  // namespace

extern const quant::Kernels quant_kernels;
const quant::Kernels quant_kernels = {
    FloatTile<float>::kMostRows,
    Plain<Bytes>::kMostRows,
    gather,
    encode,
    {float_products<float>, float_products<bfloat16>, integer_products<Bytes>,
     integer_products<Nibbles>},
    {nullptr, widen_halves, nullptr, widen_nibbles},
    {{}, float_products<float, false>, {}, integer_products<WidenedNibbles>},
    write,
};

}  // namespace oarlock::OARLOCK_PATH
