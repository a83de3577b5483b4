// The kernels of products with packed weights, a table for each code path.
#pragma once

#include <stdint.h>

#include "quant/layout.h"

namespace oarlock::quant {

// Rows that a weight is multiplied by: floats, or what they were rounded to.
struct Rows {
  const float* values;   // [rows, stride]
  int64_t stride;
  const int8_t* codes;   // [rows, code_stride], zero beyond the inputs
  int64_t code_stride;
  const float* scales;   // [rows, group_stride]
  const int32_t* sums;   // of the codes of each group, alike
  int64_t group_stride;
};

// sums[r] += row r of `x` times a part of a panel of so many inputs, kWidth numbers for each of `rows`; with
// `first`, sums[r] = it.
using Product = void (*)(const Rows& x, int64_t rows, const void* panel, int64_t inputs, bool first,
                         float* sums);

struct Kernels {
  // A row -> int8 codes, with scale = largest magnitude / 127 for each group.
  void (*encode)(const float* x, int64_t inputs, int8_t* codes, float* scales, int32_t* sums);
  // A panel of int4 -> one of int8 that gives the same products, bit by bit.
  void (*widen)(const void* panel, int64_t blocks, void* out);
  // By format: with what every processor of this path has, and with VNNI. `widened` codes are int4's.
  Product base[kFormats], more[kFormats];
  Product widened_base, widened_more;
};

}  // namespace oarlock::quant
