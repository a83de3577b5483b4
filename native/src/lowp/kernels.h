// The kernels of low-precision products, a few tables for each code path.
//
// A product works on panels. A panel of width W holds W rows of op(a), or W columns of op(b), along
// the reduction: for each group of elements that fill four bytes (one float, two int16 or four
// int8), W such groups side by side. Sizes and offsets along the reduction are in groups.
#pragma once

#include <stdint.h>

namespace oarlock::lowp {

enum class Format : int32_t { fp32, bf16, fp16, int8, int16, fp8_e4m3, fp8_e5m2 };
constexpr int kFormats = 7;

// What a group holds: one float32, two int16, four int8, or two bfloat16.
enum class Unit : int32_t { floats, words, bytes, halves };
constexpr int kUnits = 4;
constexpr int per_group(Unit unit) {
  return unit == Unit::floats ? 1 : unit == Unit::bytes ? 4 : 2;
}

enum class Activation : int32_t { none, relu, gelu, silu };
constexpr int kActivations = 4;

// How values are rounded: to nearest, or up with a probability that 16 bits of a hash decide.
struct Random {
  uint32_t key0, key1, first;  // keys of the row, index of its first element
};

// Bits of the largest magnitude; those of NaN and Inf are larger than all others.
struct Most {
  uint32_t (*row)(const void* x, int64_t n);
  void (*columns)(const void* x, int64_t n, uint32_t* most);  // most[i] grows to |x[i]|
};

// Rows of elements -> rounded elements. inv is what each is multiplied by first.
using EncodeRow = void (*)(const void* x, int64_t n, float inv, const Random& random, void* out);
// The same with one factor for each element.
using EncodeWide = void (*)(const void* x, int64_t n, const float* inv, const Random& random,
                            void* out);
// The rows of one group -> n groups.
using EncodeGroup = void (*)(const void* const* rows, int64_t n, const float* inv,
                             const Random* random, void* out);
// Codes -> values times scale.
using DecodeRow = void (*)(const void* x, int64_t n, float scale, float* out);
using DecodeWide = void (*)(const void* x, int64_t n, const float* scale, float* out);

struct Encoder {
  EncodeRow row;
  EncodeGroup group;
};

// Values -> what a product takes, and codes -> what a product takes; null where there is no such.
struct PackKernels {
  Most most[2];                             // by source, float32 or bfloat16
  Encoder encode[2][kFormats][kUnits][2];   // source, format, unit, at random
  Encoder decode[kFormats][kUnits];
};

// Values -> codes of a format, and codes -> values.
struct CodeKernels {
  struct {
    EncodeRow row;
    EncodeWide wide;
  } store[2][kFormats][2];  // source, format, at random
  struct {
    DecodeRow row;
    DecodeWide wide;
  } load[kFormats];
};

struct HadamardKernels {
  // The orthonormal transform of each `block` of n elements; by type of x and of out.
  void (*transform[2][2])(const void* x, int64_t n, int64_t block, float* room, void* out);
};

struct PanelKernels {
  // Rows of groups, `stride` apart -> a panel of that width. Every group is xored with flip.
  void (*interleave)(const uint32_t* rows, int64_t stride, int64_t groups, int width,
                     uint32_t flip, uint32_t* panel);
  // n groups side by side -> one group of each of the panels `stride` apart, xored with flip.
  void (*scatter)(const uint32_t* groups, int64_t n, int width, uint32_t flip, int64_t stride,
                  uint32_t* panels);
  // sums[i] = -128 times the sum of the int8 of row i of a panel.
  void (*offsets)(const uint32_t* panel, int64_t groups, int width, int32_t* sums);
};

// Memory that will be used soon: `lines` rows of `bytes`, `stride` bytes apart, that will be
// written, and what starts at `next`, `step` bytes for each group, that will be read.
struct Fetch {
  const void* data;
  int64_t lines, bytes, stride;
  const void* next;
  int64_t step;
};

// c[i][j] = start[i] + a sum over groups, or c[i][j] += ... where start is null; c is
// [rows][panel_width], a and b are panels of tile_rows rows and panel_width columns.
using Tile = void (*)(const uint32_t* a, const uint32_t* b, int64_t groups, const int32_t* start,
                      uint32_t* c, const Fetch& fetch);
constexpr int kMostTileRows = 16;

struct TileKernels {
  int tile_rows, panel_width;
  // By unit and rows - 1: with what every processor of this path has, and with more (VNNI, BF16).
  const Tile* base[kUnits];
  const Tile* more[kUnits];
};

// What becomes of a tile of sums. Pointers are to the tile's rows and the panel's columns.
struct Finish {
  const float* row_scales;     // null for 1
  const float* column_scales;  // null for 1
  const float* bias;           // null for none
  Activation activation;
  bool integers;               // whether the sums are int32
};

struct FinishKernels {
  // sums += tile * scales, or sums = where `first`; both are [rows][panel_width].
  void (*flush)(const uint32_t* tile, int rows, const Finish& f, bool first, float* sums);
  // out[i][j] = activation(tile * scales + bias) for j < columns; by type of out, float32 or
  // bfloat16.
  void (*finish[2])(const uint32_t* tile, int rows, int64_t columns, const Finish& f, void* out,
                    int64_t stride);
};

}  // namespace oarlock::lowp
