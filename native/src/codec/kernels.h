// The kernels of gradient codes: a few tables for each code path.
//
// An encoder with `keep` leaves x - decoded(code) in x, element by element, with the very operations of
// the decoder, so that what is sent and what stays add up to x but for one rounding.
#pragma once

#include <stdint.h>

namespace oarlock::codec {

// Element by element (values.kernel.cpp). `gradient` is float32 or bfloat16.
struct ValueKernels {
  // x = decay x + scale gradient
  void (*accumulate[2])(float* x, const void* gradient, int64_t n, float scale, float decay);
  void (*bf16_encode[2])(float* x, int64_t n, uint16_t* code);  // [keep]
  void (*bf16_add)(const uint16_t* code, int64_t n, float weight, float* out);
};

// Blocks with a scale each (blocks.kernel.cpp). `n` elements from block number `first` on; a block is
// a multiple of 8 elements, the last one what is left.
struct Blocks {
  int64_t n, block, first;
  uint64_t key;  // of the random numbers
};
using EncodeBlocks = void (*)(float* x, const Blocks& blocks, uint8_t* codes, float* scales);
using AddBlocks = void (*)(const uint8_t* codes, const float* scales, const Blocks& blocks,
                           float weight, float* out);
using WriteBlocks = void (*)(const uint8_t* codes, const float* scales, const Blocks& blocks,
                             float* out);
struct BlockKernels {
  EncodeBlocks encode[3][2][2];  // bits 8, 4, 2; at random; keep
  AddBlocks add[3];
  WriteBlocks write[3];
};
struct SignKernels {  // signs.kernel.cpp
  EncodeBlocks encode[2];  // keep
  AddBlocks add;
  WriteBlocks write;
};

// Magnitudes are compared as whole numbers, the bits without sign; all NaN are kNan, above Inf.
constexpr int32_t kNan = 0x7f800001;
constexpr int64_t kLargestChunk = 65536;

struct Rank {
  int32_t least;  // the k-th largest magnitude
  int64_t above;  // how many are larger
};
struct RankKernels {  // rank.kernel.cpp
  // Of n <= kLargestChunk magnitudes, for 1 <= k <= n.
  Rank (*kth)(const float* x, int64_t n, int64_t k);
  // counts[magnitude >> 15] += 1 for each that is at least `least`; kHigh counts.
  void (*count_high)(const float* x, int64_t n, int32_t least, uint32_t* counts);
  // counts[magnitude & 0x7fff] += 1 for each whose upper bits are these; kLow counts.
  void (*count_low)(const float* x, int64_t n, int32_t high, uint32_t* counts);
};
constexpr int64_t kHigh = 65536, kLow = 32768;

struct TakeKernels {  // take.kernel.cpp
  // How many are at least `least`, and how many are above it; n < 2^31.
  void (*count)(const float* x, int64_t n, int32_t least, int64_t* at_least, int64_t* above);
  // Positions, plus `base`, and values of magnitudes above `least`, and of the first `equal` that are
  // equal to it. Returns how many these are; those that find no room are left alone.
  int64_t (*take_short[2])(float* x, int64_t n, int32_t least, int64_t equal, int64_t base,
                           int64_t room, uint16_t* indices, float* values);  // [keep]
  int64_t (*take[2])(float* x, int64_t n, int32_t least, int64_t equal, int64_t base, int64_t room,
                     uint32_t* indices, float* values);
};

// Numbers of 1 to 16 bits side by side, low bits first (bits.kernel.cpp).
struct BitKernels {
  uint32_t (*any)(const uint16_t* values, int64_t n);  // bits that one of them has
  void (*pack)(const uint16_t* values, int64_t n, int width, uint8_t* out);
  void (*unpack)(const uint8_t* in, int64_t n, int width, uint16_t* values);
};

// Products of tall matrices, row-major with `columns` <= 64 (gram.kernel.cpp).
struct GramKernels {
  // gram[i][j] += sum over rows of a[row][i] a[row][j] for i <= j; gram is [kColumns][kColumns].
  void (*gram)(const float* a, int64_t rows, int columns, double* gram);
  // a = a R^-1 for the upper triangular R, of which `inverse` are 1 / the diagonal.
  void (*solve)(float* a, int64_t rows, int columns, const double* R, const double* inverse);
};
constexpr int kColumns = 64;

// Passes over a matrix of `columns` columns (low_rank.kernel.cpp). Ranks are at most kColumns.
constexpr int64_t kPanel = 64;  // columns
constexpr int64_t kPitch = 16;  // floats, a multiple of any register
struct LowRank {
  int64_t columns;
  int sent, rank;
  const float* right;  // [panels][sent][kPanel], with zeros behind the last column
  const float* onto;   // [columns][pitch_of(rank)], with zeros behind the rank
};
constexpr int64_t pitch_of(int rank) { return (rank + kPitch - 1) / kPitch * kPitch; }
struct LowRankKernels {
  // x = (x - left right) + gradient, out = x onto^T; left is [rows][sent], out is [rows][rank].
  void (*take)(float* x, const float* gradient, int64_t rows, const LowRank& matrix,
               const float* left, float* out);
  // out[rank][columns] += left^T x, in columns [begin, end), which begin at a register; left is
  // [rows][rank].
  void (*across)(const float* x, int64_t rows, const LowRank& matrix, const float* left,
                 int64_t begin, int64_t end, float* out);
  void (*product)(const float* left, int64_t rows, const LowRank& matrix, float* out);
};

// Transforms of chunks (dct.kernel.cpp). Tables are [inputs][pitch]: one for even frequencies, with the
// larger half of the places, and one for odd ones.
struct CosineTables {
  int64_t size, pitch;  // pitch: a multiple of kTablePitch
  const float* even;
  const float* odd;
};
constexpr int64_t kTablePitch = 16;
constexpr int64_t kLargestTransform = 256;
struct CosineKernels {
  void (*forward)(const float* x, int64_t chunks, const CosineTables& tables, float* out);
  void (*inverse)(const float* x, int64_t chunks, const CosineTables& tables, float* out);
};

}  // namespace oarlock::codec
