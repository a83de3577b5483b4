// Rows rounded to int8 with a scale for 32 inputs, in bricks: the CPU's numbers.
#pragma once

#include "quant/bricks.h"
#include "quant/numbers.cuh"

namespace oarlock::cuda::quant {

constexpr int kEncodeThreads = 256;
constexpr int kEightsOfBlock = kBlock / kEight;

// Eights of a row, up to whole blocks.
OARLOCK_MAP std::int64_t eights_of(std::int64_t inputs) {
  return blocks_of(inputs) * kEightsOfBlock;
}

// Eight number `eight` of a row. Four neighbouring lanes have a group; whole warps call it together, and lanes that
// have none only come along.
__device__ inline void encode_eight(const float (&x)[kEight], char* bricks, std::int64_t blocks,
                                    std::int64_t row, std::int64_t eight, bool here = true) {
  std::uint32_t most = 0;  // as bits, of which those of NaN are the largest
#pragma unroll
  for (int i = 0; i < kEight; ++i) most = max(most, path::to_bits(x[i]) & 0x7fffffffu);
  most = max(most, __shfl_xor_sync(0xffffffffu, most, 1));
  most = max(most, __shfl_xor_sync(0xffffffffu, most, 2));
  if (!here) return;
  const float largest = path::from_bits(most);
  // Of tiny groups the inverse would not be finite; NaN and Inf stay in the scale.
  const bool rounds = largest > 0x1p-100f && most < 0x7f800000u;
  const float inverse = rounds ? 127.0f / largest : 0.0f;
  std::uint32_t codes[2] = {};
#pragma unroll
  for (int i = 0; i < kEight; ++i) {
    const float y = rounds ? x[i] * inverse : 0.0f;
    const int code = static_cast<int>((y + 12582912.0f) - 12582912.0f);
    codes[i / 4] |= (static_cast<std::uint32_t>(code) & 0xffu) << 8 * (i % 4);
  }
  char* const brick =
      bricks + (row / kTileRows * blocks + eight / kEightsOfBlock) * kRowBrick;
  const int r = static_cast<int>(row % kTileRows), t = static_cast<int>(eight % 4);
  const int group = static_cast<int>(eight % kEightsOfBlock / 4);
  *reinterpret_cast<uint2*>(brick + (4 * r + t) * kLaneBytes + 8 * group) = uint2{codes[0], codes[1]};
  if (t == 0)
    *reinterpret_cast<float*>(brick + kRowCodes + 8 * r + 4 * group) = largest * (1.0f / 127.0f);
}

// Calls for rows of `source` what it gives, written as numbers, as codes, or both. Codes of rows up to a whole
// tile are zero.
template <typename Source>
__global__ void __launch_bounds__(kEncodeThreads)
    map_rows(const __grid_constant__ Source source, std::int64_t rows, std::int64_t columns,
             const __grid_constant__ Target out, char* bricks) {
  const std::int64_t eights = eights_of(columns), all = tiles_of(rows, kTileRows) * kTileRows;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kEncodeThreads + threadIdx.x;
  const std::int64_t row = at / eights, eight = at % eights;
  if (row >= all) return;  // a warp as a whole
  float x[kEight] = {};
  if (row < rows) {
    source.load(row, eight * kEight, columns, x);
    if (out.data != nullptr) put_eight(out, row, eight * kEight, columns, x);
  }
  if (bricks != nullptr) encode_eight(x, bricks, eights / kEightsOfBlock, row, eight);
}

struct Given {
  Numbers x;
  __device__ void load(std::int64_t row, std::int64_t first, std::int64_t end,
                       float (&out)[kEight]) const {
    load_eight(x, row, first, end, out);
  }
};

}  // namespace oarlock::cuda::quant
