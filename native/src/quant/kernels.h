// The kernels of products with packed weights, a table for each code path.
#pragma once

#include <stdint.h>

#include "quant/layout.h"

namespace oarlock::quant {

// 32 numbers of a row as they are multiplied: codes times the scale.
struct Group {
  int8_t codes[kGroup];  // zero beyond the inputs
  float scale;           // largest magnitude / 127
  int32_t start;         // what sums of products begin with, as a weight's codes have no sign
};

// Rows that a weight is multiplied by, in tiles whose sums are in registers. A tile is packed along the inputs:
// a number or a Group of each of its rows, and so on. Those of tile i are rows[first_row(i)] to
// rows[first_row(i + 1)].
struct Rows {
  const void* packed;
  int64_t row_bytes;  // of a row in all tiles
  int64_t rows, tiles;

  int64_t first_row(int64_t tile) const { return rows * tile / tiles; }
};

// sums[r] += row r of `x` from `input` on, a multiple of kBlock, times a part of a panel of so many inputs, for the
// rows of some tiles, kWidth numbers for each; with `start`, sums[r] = it.
using Product = void (*)(const Rows& x, int64_t first_tile, int64_t end_tile, int64_t input,
                         const void* panel, int64_t inputs, bool start, float* sums);

// By what every processor of this path has, and with VNNI.
struct Products {
  Product base, more;
};

struct Kernels {
  int64_t tile_of_floats, tile_of_codes;  // rows, at most
  // A tile of rows -> [inputs, rows].
  void (*gather)(const float* x, int64_t stride, int64_t rows, int64_t inputs, float* out);
  // Rounded, as [inputs / kGroup, rows]; `zero` is the code of zero in the weight.
  void (*encode)(const float* x, int64_t stride, int64_t rows, int64_t inputs, int32_t zero,
                 Group* out);
  Products products[kFormats];
  // For many rows: a panel -> one of another format that gives the same products, bit by bit, sooner. Null
  // where there is no better one.
  void (*widen[kFormats])(const void* panel, int64_t blocks, void* out);
  Products widened[kFormats];
  // Sums of rows of a panel into [rows, stride], of which it has `columns`; the bias may be null.
  void (*write)(const float* sums, int64_t rows, int64_t columns, const float* bias, bool accumulate,
                float* out, int64_t stride);
};

}  // namespace oarlock::quant
