// Turning queries and keys with their positions, and storing keys and values in pages.
#pragma once

#include "decoder/pages.cuh"

namespace oarlock::cuda::decoder {

constexpr int kStoreThreads = 128, kStoreWarps = kStoreThreads / 32;
constexpr int kShare = kMostHeadSize / 32;  // numbers of a lane

struct Rotation {
  const float* cos;  // [positions, rotary / 2], or null
  const float* sin;
  int rotary;
  bool halves;
};

// Number d of a head, turned.
__device__ inline float turned(const quant::Numbers& qkv, std::int64_t row, std::int64_t head,
                               int d, std::int64_t position, const Rotation& r) {
  const float x = load_one(qkv, row, head + d);
  if (d >= r.rotary) return x;
  const int pairs = r.rotary / 2, apart = r.halves ? pairs : 1;
  const bool first = r.halves ? d < pairs : d % 2 == 0;
  const int pair = r.halves ? d % pairs : d / 2;
  const float other = load_one(qkv, row, head + (first ? d + apart : d - apart));
  const float cos = r.cos[position * pairs + pair], sin = r.sin[position * pairs + pair];
  return first ? x * cos - other * sin : other * sin + x * cos;
}

__device__ inline void put_item(float* to, float x) { *to = x; }
__device__ inline void put_item(path::bfloat16* to, float x) {
  *to = path::bfloat16(path::round_nearest(x));
}

// A warp's numbers d = lane + 32 i at to[d * stride]; of int8 their scale too: largest magnitude / 127.
template <typename T>
__device__ void put_items(const float (&x)[kShare], int count, T* to, int stride, float* scale) {
  const int lane = threadIdx.x % 32;
  if constexpr (kScaled<T>) {
    std::uint32_t most = 0;
    for (int i = 0; i < kShare; ++i)
      if (lane + 32 * i < count) most = max(most, path::to_bits(x[i]) & 0x7fffffffu);
    for (int width = 1; width < 32; width *= 2)
      most = max(most, __shfl_xor_sync(0xffffffffu, most, width));
    const float largest = path::from_bits(most);
    const bool rounds = largest > 0x1p-100f && most < 0x7f800000u;
    const float inverse = rounds ? 127.0f / largest : 0.0f;
    for (int i = 0; i < kShare; ++i) {
      const float y = rounds ? x[i] * inverse : 0.0f;
      if (lane + 32 * i < count)
        to[(lane + 32 * i) * stride] =
            static_cast<T>(static_cast<int>((y + 12582912.0f) - 12582912.0f));
    }
    if (lane == 0) *scale = largest * (1.0f / 127.0f);
  } else {
    for (int i = 0; i < kShare; ++i)
      if (lane + 32 * i < count) put_item(to + (lane + 32 * i) * stride, x[i]);
  }
}

// A warp for each head of queries, keys and values of a row. Queries stay where they were, turned.
template <typename T>
__global__ void __launch_bounds__(kStoreThreads)
    store(const __grid_constant__ Attention p, const __grid_constant__ Rotation r) {
  const std::int64_t row = blockIdx.x;
  const int slot = blockIdx.y * kStoreWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (slot >= p.heads + 2 * p.kv_heads) return;  // a warp as a whole
  const std::int64_t position = p.position(row), at = std::int64_t{slot} * p.head_size;
  const bool value = slot >= p.heads + p.kv_heads;
  float x[kShare];
#pragma unroll
  for (int i = 0; i < kShare; ++i) {
    const int d = lane + 32 * i;
    x[i] = d >= p.head_size ? 0.0f
           : value          ? load_one(p.qkv, row, at + d)
                            : turned(p.qkv, row, at, d, position, r);
  }
  __syncwarp();  // all have read what is overwritten
  if (slot < p.heads) {
    if (r.rotary == 0) return;
    const quant::Target back{const_cast<void*>(p.qkv.data), p.qkv.stride, p.qkv.narrow, false};
#pragma unroll
    for (int i = 0; i < kShare; ++i)
      if (lane + 32 * i < r.rotary) put_one(back, row, at + lane + 32 * i, x[i]);
    return;
  }
  const int kv_head = (slot - p.heads) % p.kv_heads, place = static_cast<int>(position % kPage);
  const Head<T> head(p.head(p.owners[row], position / kPage, kv_head), p.head_size);
  if (value)
    put_items(x, p.head_size, head.values + place * p.head_size, 1, head.value_scales + place);
  else
    put_items(x, p.head_size, head.keys + place, static_cast<int>(kPage), head.key_scales + place);
}

}  // namespace oarlock::cuda::decoder
