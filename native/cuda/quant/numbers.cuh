// Eight neighbours of a row at a time, float32 or bfloat16.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/kernel.h"

namespace oarlock::cuda::quant {

constexpr int kEight = 8;

// Numbers in memory. `whole`: each eight begins at a multiple of its size, and none is cut by a row's end.
struct Numbers {
  const void* data;
  std::int64_t stride;  // from row to row
  bool narrow;          // bfloat16
  bool whole;
};

__device__ inline void load_eight(const float* p, float (&x)[kEight]) {
  const uint4 a = reinterpret_cast<const uint4*>(p)[0], b = reinterpret_cast<const uint4*>(p)[1];
  const std::uint32_t words[kEight] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < kEight; ++i) x[i] = path::from_bits(words[i]);
}

__device__ inline void load_eight(const path::bfloat16* p, float (&x)[kEight]) {
  const uint4 a = *reinterpret_cast<const uint4*>(p);
  const std::uint32_t words[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = path::from_bits(words[i] << 16);
    x[2 * i + 1] = path::from_bits(words[i] & 0xffff0000u);
  }
}

// Numbers first to first + 7 of a row, zeros from `end` on.
template <typename T>
__device__ void load_eight(const T* row, std::int64_t first, std::int64_t end, bool whole,
                           float (&x)[kEight]) {
  if (whole && first < end) return load_eight(row + first, x);
#pragma unroll
  for (int i = 0; i < kEight; ++i)
    x[i] = first + i < end ? path::load(row, first + i) : 0.0f;
}

__device__ inline void load_eight(const Numbers& n, std::int64_t row, std::int64_t first,
                                  std::int64_t end, float (&x)[kEight]) {
  if (n.narrow)
    load_eight(static_cast<const path::bfloat16*>(n.data) + row * n.stride, first, end, n.whole, x);
  else
    load_eight(static_cast<const float*>(n.data) + row * n.stride, first, end, n.whole, x);
}

__device__ inline float load_one(const Numbers& n, std::int64_t row, std::int64_t at) {
  const std::int64_t place = row * n.stride + at;
  return n.narrow ? path::load(static_cast<const path::bfloat16*>(n.data), place)
                  : path::load(static_cast<const float*>(n.data), place);
}

// What is written; null data for nothing.
struct Target {
  void* data;
  std::int64_t stride;
  bool narrow;
  bool whole;
};

__device__ inline void put_one(const Target& t, std::int64_t row, std::int64_t at, float x) {
  const std::int64_t place = row * t.stride + at;
  if (t.narrow)
    static_cast<std::uint16_t*>(t.data)[place] = path::round_nearest(x);
  else
    static_cast<float*>(t.data)[place] = x;
}

__device__ inline void put_eight(const Target& t, std::int64_t row, std::int64_t first,
                                 std::int64_t end, const float (&x)[kEight]) {
  if (t.whole && first < end) {
    std::uint32_t words[kEight];
#pragma unroll
    for (int i = 0; i < kEight; ++i) words[i] = path::to_bits(x[i]);
    const std::int64_t place = row * t.stride + first;
    if (t.narrow) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        words[i] = path::round_nearest(x[2 * i]) |
                   static_cast<std::uint32_t>(path::round_nearest(x[2 * i + 1])) << 16;
      *reinterpret_cast<uint4*>(static_cast<std::uint16_t*>(t.data) + place) =
          uint4{words[0], words[1], words[2], words[3]};
    } else {
      uint4* const to = reinterpret_cast<uint4*>(static_cast<float*>(t.data) + place);
      to[0] = uint4{words[0], words[1], words[2], words[3]};
      to[1] = uint4{words[4], words[5], words[6], words[7]};
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kEight; ++i)
    if (first + i < end) put_one(t, row, first + i, x[i]);
}

}  // namespace oarlock::cuda::quant
