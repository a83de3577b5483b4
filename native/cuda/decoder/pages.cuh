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
  const std::uint32_t words[2] = {two.x ^ 0x80808080u, two.y ^ 0x80808080u};
  // Behind the bits of 2^23 a byte is that much more: no conversions, which are slow.
#pragma unroll
  for (int i = 0; i < 8; ++i)
    x[i] = path::from_bits(__byte_perm(words[i / 4], 0x4b000000u, 0x7540 + i % 4)) - 8388736.0f;
}

// Items of a and b beside each other as bfloat16, which holds them exactly; of a null b zeros.
__device__ inline void load_pairs(const path::bfloat16* a, const path::bfloat16* b,
                                  std::uint32_t (&words)[8]) {
  const uint4 four = *reinterpret_cast<const uint4*>(a);
  const uint4 more = b != nullptr ? *reinterpret_cast<const uint4*>(b) : uint4{0, 0, 0, 0};
  const std::uint32_t low[4] = {four.x, four.y, four.z, four.w};
  const std::uint32_t high[4] = {more.x, more.y, more.z, more.w};
#pragma unroll
  for (int i = 0; i < 8; ++i)
    words[i] = __byte_perm(low[i / 2], high[i / 2], i % 2 ? 0x7632 : 0x5410);
}
__device__ inline void load_pairs(const std::int8_t* a, const std::int8_t* b,
                                  std::uint32_t (&words)[8]) {
  float low[8], high[8] = {};
  load_items(a, low);
  if (b != nullptr) load_items(b, high);
#pragma unroll
  for (int i = 0; i < 8; ++i)
    words[i] = __byte_perm(path::to_bits(low[i]), path::to_bits(high[i]), 0x7632);
}

}  // namespace oarlock::cuda::decoder
