// Attention of prompts on tensor cores: a block for 64 queries of a head of keys, 64 positions at a time.
//
// Queries are rows and the heads that share the keys, so that grouped heads fill the tile. Keys and values of bfloat16
// are multiplied as they are, codes of int8 too, which bfloat16 holds exactly; queries and weights are rounded to bfloat16,
// sums are float32. A query's bits do not depend on the others: positions it does not see add zeros.
#pragma once

#include "decoder/few_queries.cuh"
#include "lowp/primitives.cuh"

namespace oarlock::cuda::decoder {

constexpr int kManyThreads = 128, kWarpQueries = 16, kTileQueries = 64, kTileKeys = 64;
constexpr int kTilePages = kTileKeys / static_cast<int>(kPage);

// Words of two bfloat16 in shared memory: queries and keys along the head, values along the positions. Pitches let
// the lanes of a fragment lie in different banks.
template <int kDim>
struct Layout {
  static constexpr int kKeyPitch = kDim / 2 + 4, kValuePitch = kDim + 8;
  static constexpr int kQueryWords = kTileQueries * kKeyPitch, kKeyWords = kTileKeys * kKeyPitch;
  static constexpr int kValueWords = kTileKeys / 2 * kValuePitch;
  static constexpr int kScales = kDim / 2;  // of a key and its value, in the words behind the key
  static constexpr int kBytes = 4 * (kQueryWords + kKeyWords + kValueWords);
};

// The keys and values of a tile into shared memory; of positions that are not in [first, end) values are zero.
template <typename T, int kDim>
__device__ void load_tile(const Attention& p, std::int64_t sequence, int kv_head,
                          std::int64_t tile, std::int64_t first, std::int64_t end,
                          std::uint32_t* keys, std::uint32_t* values) {
  using L = Layout<kDim>;
  for (int i = threadIdx.x; i < kTilePages * kDim; i += kManyThreads) {
    const int half = i % 2, pair = i / 2 % (kDim / 2), number = i / kDim;
    const std::int64_t page = tile * kTilePages + number;
    const bool here = page * kPage < end && (page + 1) * kPage > first && 2 * pair < p.head_size;
    std::uint32_t words[8] = {};
    if (here) {
      const Head<T> head(p.head(sequence, page, kv_head), p.head_size);
      const T* const from = head.keys + 2 * pair * kPage + half * 8;
      load_pairs(from, from + kPage, words);
    }
#pragma unroll
    for (int j = 0; j < 8; ++j)
      keys[(number * kPage + half * 8 + j) * L::kKeyPitch + pair] = words[j];
  }
  constexpr int kPieces = kDim / 8;
  for (int i = threadIdx.x; i < kTileKeys / 2 * kPieces; i += kManyThreads) {
    const int piece = i % kPieces, pair = i / kPieces;
    const std::int64_t position = tile * kTileKeys + 2 * pair, page = position / kPage;
    std::uint32_t words[8] = {};
    if (piece * 8 < p.head_size && (page + 1) * kPage > first && position < end) {
      const Head<T> head(p.head(sequence, page, kv_head), p.head_size);
      const T* const from = head.values + position % kPage * p.head_size + piece * 8;
      load_pairs(from, position + 1 < end ? from + p.head_size : nullptr, words);
    }
    uint4* const to = reinterpret_cast<uint4*>(values + pair * L::kValuePitch + piece * 8);
    to[0] = uint4{words[0], words[1], words[2], words[3]};
    to[1] = uint4{words[4], words[5], words[6], words[7]};
  }
  if constexpr (kScaled<T>)
    for (int i = threadIdx.x; i < 2 * kTileKeys; i += kManyThreads) {
      const std::int64_t position = tile * kTileKeys + i % kTileKeys, page = position / kPage;
      float scale = 0;
      if ((page + 1) * kPage > first && position < end) {
        const Head<T> head(p.head(sequence, page, kv_head), p.head_size);
        scale = (i < kTileKeys ? head.key_scales : head.value_scales)[position % kPage];
      }
      keys[i % kTileKeys * L::kKeyPitch + L::kScales + i / kTileKeys] = path::to_bits(scale);
    }
}

template <typename T, int kDim>
__global__ void __launch_bounds__(kManyThreads)
    attend_many(const __grid_constant__ Attention p) {
  using L = Layout<kDim>;
  const int group = p.heads / p.kv_heads, kv_head = blockIdx.y;
  const std::int64_t sequence = blockIdx.z, rows = p.counts[sequence], all = rows * group;
  const std::int64_t first_query = static_cast<std::int64_t>(blockIdx.x) * kTileQueries;
  if (rows <= kFewRows || first_query >= all) return;
  std::uint32_t* const queries = reinterpret_cast<std::uint32_t*>(lowp::dynamic_shared());
  std::uint32_t* const keys = queries + L::kQueryWords;
  std::uint32_t* const values = keys + L::kKeyWords;
  const std::int64_t offset = p.offsets[sequence], start = p.starts[sequence];
  for (int i = threadIdx.x; i < kTileQueries * (kDim / 2); i += kManyThreads) {
    const int q = i / (kDim / 2), pair = i % (kDim / 2);
    const std::int64_t query = first_query + q, head = kv_head * group + query % group;
    float x[2] = {};
    for (int j = 0; j < 2; ++j)
      if (query < all && 2 * pair + j < p.head_size)
        x[j] = load_one(p.qkv, offset + query / group, head * p.head_size + 2 * pair + j) * p.scale;
    queries[q * L::kKeyPitch + pair] = lowp::two_bfloat16(x[0], x[1]);
  }
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, r = lane / 4, t = lane % 4;
  // Of this lane's queries, r and r + 8 of the warp's.
  std::int64_t firsts[2], heres[2];
  float slopes[2] = {}, most[2] = {kHidden, kHidden}, total[2] = {};
  for (int i = 0; i < 2; ++i) {
    const std::int64_t query = min(first_query + warp * kWarpQueries + r + 8 * i, all - 1);
    heres[i] = start + query / group;
    firsts[i] = p.first_seen(heres[i]);
    if (p.slopes != nullptr) slopes[i] = p.slopes[kv_head * group + query % group] * 1.44269504f;
  }
  const std::int64_t last_query = min(first_query + kTileQueries, all) - 1;
  const std::int64_t first = p.first_seen(start + first_query / group);
  const std::int64_t end = start + last_query / group + 1;
  float sums[kDim / 8][4] = {};
  for (std::int64_t tile = first / kTileKeys; tile * kTileKeys < end; ++tile) {
    __syncthreads();  // nobody reads the tile before it any more
    load_tile<T, kDim>(p, sequence, kv_head, tile, first, end, keys, values);
    __syncthreads();
    float scores[kTileKeys / 8][4] = {};
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      const std::uint32_t* const from = queries + (warp * kWarpQueries + r) * L::kKeyPitch + step * 8 + t;
      const std::uint32_t a[4] = {from[0], from[8 * L::kKeyPitch], from[4], from[8 * L::kKeyPitch + 4]};
#pragma unroll
      for (int n = 0; n < kTileKeys / 8; ++n) {
        const std::uint32_t* const key = keys + (n * 8 + r) * L::kKeyPitch + step * 8 + t;
        const std::uint32_t b[2] = {key[0], key[4]};
        lowp::multiply_add<lowp::Numbers::bf16>(scores[n], a, b);
      }
    }
    float top[2] = {kHidden, kHidden};
    std::uint32_t hidden = 0;  // a bit for each score
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = n * 8 + 2 * t + i % 2;
        const std::int64_t position = tile * kTileKeys + at;
        float score = scores[n][i];
        if constexpr (kScaled<T>) score = score * path::from_bits(keys[at * L::kKeyPitch + L::kScales]);
        score = fmaf(slopes[i / 2], static_cast<float>(position - heres[i / 2]), score);
        if (position < firsts[i / 2] || position > heres[i / 2])
          hidden |= 1u << (n * 4 + i);
        else
          top[i / 2] = fmaxf(top[i / 2], score);
        scores[n][i] = score;
      }
    float keep[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      top[i] = fmaxf(top[i], __shfl_xor_sync(0xffffffffu, top[i], 1));
      top[i] = fmaxf(top[i], __shfl_xor_sync(0xffffffffu, top[i], 2));
      const float now = fmaxf(most[i], top[i]);
      keep[i] = exp2f(most[i] - now);
      most[i] = now;
      total[i] = total[i] * keep[i];
    }
#pragma unroll
    for (int n = 0; n < kTileKeys / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float weight = hidden >> (n * 4 + i) & 1u ? 0.0f : exp2f(scores[n][i] - most[i / 2]);
        total[i / 2] = total[i / 2] + weight;
        if constexpr (kScaled<T>) {
          const int at = n * 8 + 2 * t + i % 2;
          weight = weight * path::from_bits(keys[at * L::kKeyPitch + L::kScales + 1]);
        }
        scores[n][i] = weight;
      }
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[n][i] = sums[n][i] * keep[i / 2];
#pragma unroll
    for (int page = 0; page < kTilePages; ++page) {
      const float(&low)[4] = scores[2 * page], (&high)[4] = scores[2 * page + 1];
      const std::uint32_t a[4] = {lowp::two_bfloat16(low[0], low[1]), lowp::two_bfloat16(low[2], low[3]),
                                  lowp::two_bfloat16(high[0], high[1]), lowp::two_bfloat16(high[2], high[3])};
#pragma unroll
      for (int n = 0; n < kDim / 8; ++n) {
        const std::uint32_t* const value = values + (page * 8 + t) * L::kValuePitch + n * 8 + r;
        const std::uint32_t b[2] = {value[0], value[4 * L::kValuePitch]};
        lowp::multiply_add<lowp::Numbers::bf16>(sums[n], a, b);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    total[i] = total[i] + __shfl_xor_sync(0xffffffffu, total[i], 1);
    total[i] = total[i] + __shfl_xor_sync(0xffffffffu, total[i], 2);
  }
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::int64_t query = first_query + warp * kWarpQueries + r + i / 2 * 8;
      const int d = n * 8 + 2 * t + i % 2;
      if (query < all && d < p.head_size)
        put_one(p.out, offset + query / group, (kv_head * group + query % group) * p.head_size + d,
                sums[n][i] * (1.0f / total[i / 2]));
    }
}

}  // namespace oarlock::cuda::decoder
