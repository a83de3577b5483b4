// What the kernels of attention share on a GPU: operands, the mask, and tiles in shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "attention/arguments.h"
#include "core/kernel.h"

namespace oarlock::cuda {

constexpr int kTile = 32;              // rows and keys of a tile
constexpr int kLanesOfRow = 4;         // threads that share a row of a tile
constexpr int kBlock = kTile * kLanesOfRow;
constexpr int kShare = kTile / kLanesOfRow;        // keys of a thread
constexpr int kMostOfThread = 256 / kLanesOfRow;   // dims of a thread
constexpr unsigned kWholeWarp = 0xffffffffu;

struct AttentionShape {
  std::int64_t batch, rows, keys, heads, kv_heads, dim;
  float scale;
};

// For each key `width` numbers, as oarlock/native/masks.py explains; null for none.
struct Bounds {
  const std::int32_t* numbers;
  std::int64_t batches, heads, keys, rows;
  int width;
  bool causal;

  __device__ bool sees(std::int64_t batch, std::int64_t kv_head, std::int64_t row,
                       std::int64_t key) const {
    if (row >= rows || key >= keys || (causal && key > row + keys - rows)) return false;
    if (numbers == nullptr) return true;
    const std::int64_t place = (batch % batches * heads + kv_head % heads) * keys + key;
    const std::int32_t* const b = numbers + place * width;
    if (causal) return row < b[0] || (width == 2 && row >= b[1]);
    if (width == 2) return row < b[0] && row >= b[1];
    return (row < b[0] || row >= b[1]) && (row < b[2] || row >= b[3]);
  }
};

// Address of the first number of a row of one head in [batch, sequence, heads, dim].
template <typename T>
__device__ T* row_of(T* data, std::int64_t batch, std::int64_t length, std::int64_t row,
                     std::int64_t heads, std::int64_t head, std::int64_t dim) {
  return data + ((batch * length + row) * heads + head) * dim;
}

// Rows [first, first + kTile) of one head into shared memory, [kTile, dim + 1]; zeros past the end.
template <typename T>
__device__ void load_tile(float* to, const T* data, std::int64_t batch, std::int64_t length,
                          std::int64_t first, std::int64_t heads, std::int64_t head,
                          std::int64_t dim, float scale) {
  for (int i = threadIdx.x; i < kTile * dim; i += kBlock) {
    const int row = i / dim, d = i % dim;
    to[row * (dim + 1) + d] =
        first + row < length
            ? path::load(row_of(data, batch, length, first + row, heads, head, dim), d) * scale
            : 0.0f;
  }
}

__device__ inline float dot(const float* a, const float* b, std::int64_t dim) {
  float sum = 0;
  for (int d = 0; d < dim; ++d) sum = fmaf(a[d], b[d], sum);
  return sum;
}

__device__ inline void put(float* p, std::int64_t i, float x) { p[i] = x; }
__device__ inline void put(path::bfloat16* p, std::int64_t i, float x) {
  p[i] = path::bfloat16(path::round_nearest(x));
}

// Over the threads that share a row.
__device__ inline float sum_of_row(float x) {
  for (int width = 1; width < kLanesOfRow; width *= 2) x += __shfl_xor_sync(kWholeWarp, x, width);
  return x;
}
__device__ inline float largest_of_row(float x) {
  for (int width = 1; width < kLanesOfRow; width *= 2)
    x = fmaxf(x, __shfl_xor_sync(kWholeWarp, x, width));
  return x;
}

}  // namespace oarlock::cuda
