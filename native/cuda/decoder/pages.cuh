// Keys and values in pages on a GPU: the CPU's bytes, so that pages can go back and forth.
#pragma once

#include <cstdint>

#include "core/kernel.h"
#include "decoder/cache.h"
#include "quant/numbers.cuh"

namespace oarlock::cuda::decoder {

using oarlock::decoder::kPage;

constexpr int kMostHeadSize = 256;

// What attention of one layer works on. Rows of a sequence stand together, at rising positions.
struct Attention {
  quant::Numbers qkv;           // [rows, (heads + 2 kv_heads) head_size]
  quant::Target out;            // [rows, heads head_size]
  std::uint8_t* memory;         // of the layer in page 0
  std::int64_t page_bytes, head_bytes;
  const std::int32_t* pages;    // [sequences, most_pages]
  std::int64_t most_pages;
  const std::int32_t* starts;   // [sequences], position of the first row
  const std::int32_t* counts;   // [sequences], rows
  const std::int32_t* offsets;  // [sequences], the first row
  const std::int32_t* owners;   // [rows], the sequence
  const float* slopes;          // [heads], or null
  std::int64_t rows, sequences;
  int heads, kv_heads, head_size, window;
  float scale;                  // times log2 e

  __device__ std::int64_t position(std::int64_t row) const {
    const int sequence = owners[row];
    return starts[sequence] + (row - offsets[sequence]);
  }
  // The first position that one sees.
  __device__ std::int64_t first_seen(std::int64_t position) const {
    return window > 0 && position >= window ? position - window + 1 : 0;
  }
  __device__ std::uint8_t* head(std::int64_t sequence, std::int64_t page, int kv_head) const {
    return memory + pages[sequence * most_pages + page] * page_bytes + kv_head * head_bytes;
  }
};

// Where a head's keys [head_size, 16] and values [16, head_size] are, and of int8 their scales.
template <typename T>
struct Head {
  T* keys;
  T* values;
  float* key_scales;
  float* value_scales;

  __device__ Head(std::uint8_t* at, int head_size)
      : keys(reinterpret_cast<T*>(at)), values(keys + head_size * kPage),
        key_scales(reinterpret_cast<float*>(values + head_size * kPage)),
        value_scales(key_scales + kPage) {}
};

template <typename T>
constexpr bool kScaled = sizeof(T) == 1;

// Eight neighbours, which begin at a multiple of their size.
__device__ inline void load_items(const float* p, float (&x)[8]) { quant::load_eight(p, x); }
__device__ inline void load_items(const path::bfloat16* p, float (&x)[8]) { quant::load_eight(p, x); }
__device__ inline void load_items(const std::int8_t* p, float (&x)[8]) {
  const uint2 two = *reinterpret_cast<const uint2*>(p);
  const std::uint32_t words[2] = {two.x, two.y};
#pragma unroll
  for (int i = 0; i < 8; ++i)
    x[i] = static_cast<float>(static_cast<std::int8_t>(words[i / 4] >> 8 * (i % 4)));
}

}  // namespace oarlock::cuda::decoder
