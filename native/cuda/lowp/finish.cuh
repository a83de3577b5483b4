// What becomes of sums: scales, bias, activation, rounding. In the CPU's order of operations.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/kernel.h"
#include "lowp/activations.h"
#include "lowp/kernels.h"

namespace oarlock::cuda::lowp {

using oarlock::lowp::Activation;

struct Finish {
  const float* row_scales;     // [blocks, rows], or null where there are none
  const float* column_scales;  // [blocks, columns]
  const float* bias;           // [columns], or null
  Activation activation;
  std::int64_t rows, columns;
  void* out;                   // [rows, columns]
  bool narrow;                 // out is bfloat16
  bool pairs;                  // rows of out start where two elements can be stored at once

  // A sum of a block with its scales.
  template <typename Sum>
  __device__ float scaled(Sum sum, std::int64_t block, std::int64_t row,
                          std::int64_t column) const {
    const float x = static_cast<float>(sum);
    if (row_scales == nullptr) return x;
    return x * column_scales[block * columns + column] * row_scales[block * rows + row];
  }

  __device__ float value(float x, std::int64_t column) const {
    if (bias != nullptr) x = x + bias[column];
    switch (activation) {
      case Activation::none: return x;
      case Activation::relu: return path::relu(x);
      case Activation::gelu: return path::gelu(x);
      case Activation::silu: return path::silu(x);
    }
    return x;
  }

  __device__ void put(std::int64_t row, std::int64_t column, float x) const {
    const std::int64_t place = row * columns + column;
    if (narrow)
      static_cast<std::uint16_t*>(out)[place] = path::round_nearest(x);
    else
      static_cast<float*>(out)[place] = x;
  }

  // Columns `column` (which is even) and `column` + 1.
  __device__ void put_two(std::int64_t row, std::int64_t column, float x, float y) const {
    if (!pairs) {
      put(row, column, x);
      if (column + 1 < columns) put(row, column + 1, y);
      return;
    }
    const std::int64_t place = (row * columns + column) / 2;
    if (narrow)
      static_cast<std::uint32_t*>(out)[place] =
          path::round_nearest(x) | std::uint32_t{path::round_nearest(y)} << 16;
    else
      static_cast<float2*>(out)[place] = make_float2(x, y);
  }
};

}  // namespace oarlock::cuda::lowp
