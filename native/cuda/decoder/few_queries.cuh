// Attention of rows that come one or a few at a time: a block for a row, a head of keys and 256 positions.
//
// Four warps take pages by turns, each with a softmax of its own as it goes, and merge; then positions merge in
// their order. Which positions belong together depends on nothing but their number, so a row's bits do not depend
// on the batch. Arithmetic is float32.
#pragma once

#include "decoder/pages.cuh"

namespace oarlock::cuda::decoder {

constexpr int kFewThreads = 128, kFewWarps = kFewThreads / 32;
constexpr int kFewRows = 4;  // of a sequence in one call; with more, tensor cores take them
constexpr std::int64_t kSpan = 256, kSpanPages = kSpan / kPage;
constexpr float kHidden = -1e30f;

// Sums of spans: for each row from first_row on and each head `spans` times head_size numbers, a largest score and
// a sum.
struct Parts {
  float* data;  // null with one span, which is written to `out`
  std::int64_t first_row, spans;
  int heads, pitch;  // head_size + 2
  bool all;          // rows of any sequence; else those of sequences with kFewRows at most

  __device__ float* of(std::int64_t row, int head, std::int64_t span) const {
    return data + (((row - first_row) * heads + head) * spans + span) * pitch;
  }
};

// Sums of eight numbers over the 16 lanes with this lane's last bit: lane b4 b3 b2 b1 b0 gets that of number b4 b3 b2.
__device__ inline float scattered_sum(float (&x)[8], int lane) {
#pragma unroll
  for (int width = 16, left = 4; left >= 1; width /= 2, left /= 2) {
    const bool upper = lane & width;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i >= left) break;
      const float given = upper ? x[i] : x[i + left], kept = upper ? x[i + left] : x[i];
      x[i] = kept + __shfl_xor_sync(0xffffffffu, given, width);
    }
  }
  return x[0] + __shfl_xor_sync(0xffffffffu, x[0], 2);
}
// The place in a page of that number; lanes with b1 = 1 have the same as those without.
__device__ inline int place_of_sum(int lane) {
  return (lane & 1) * 8 + (lane >> 4 & 1) * 4 + (lane >> 3 & 1) * 2 + (lane >> 2 & 1);
}

template <typename T, int kDim, int kQueries>
__global__ void __launch_bounds__(kFewThreads)
    attend_few(const __grid_constant__ Attention p, const __grid_constant__ Parts parts) {
  constexpr int kLanesOfValue = kDim / 8, kValuesAtOnce = 32 / kLanesOfValue;
  __shared__ float queries[kQueries][kDim], sums[kFewWarps][kQueries][kDim];
  __shared__ float weights[kFewWarps][kQueries][kPage];
  __shared__ float mosts[kFewWarps][kQueries], totals[kFewWarps][kQueries];
  const int group = p.heads / p.kv_heads, kv_head = blockIdx.y;
  const int tiles = (group + kQueries - 1) / kQueries;
  const std::int64_t row = parts.first_row + blockIdx.x / tiles, span = blockIdx.z;
  const int first_query = static_cast<int>(blockIdx.x % tiles) * kQueries;
  const int count = min(kQueries, group - first_query), first_head = kv_head * group + first_query;
  const std::int64_t sequence = p.owners[row];
  if (!parts.all && p.counts[sequence] > kFewRows) return;
  const std::int64_t here = p.position(row), first = p.first_seen(here);
  const std::int64_t begin = max(span * kSpan, first), end = min((span + 1) * kSpan, here + 1);
  if (begin >= end) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int i = threadIdx.x; i < kQueries * kDim; i += kFewThreads) {
    const int q = i / kDim, d = i % kDim;
    queries[q][d] = q < count && d < p.head_size
                        ? load_one(p.qkv, row, std::int64_t{first_head + q} * p.head_size + d) * p.scale
                        : 0.0f;
  }
  __syncthreads();
  float most[kQueries], total[kQueries] = {}, sum[kQueries][8] = {};
#pragma unroll
  for (int q = 0; q < kQueries; ++q) most[q] = kHidden;
  const int half = lane % 2, of_value = lane % kLanesOfValue * 8, value_row = lane / kLanesOfValue;
  for (std::int64_t page = span * kSpanPages + warp; page * kPage < end; page += kFewWarps) {
    if ((page + 1) * kPage <= begin) continue;
    const Head<T> head(p.head(sequence, page, kv_head), p.head_size);
    float scores[kQueries][8] = {};
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      const int d = step * 16 + lane / 2;
      if (d >= p.head_size) break;
      float key[8];
      load_items(head.keys + d * kPage + half * 8, key);
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        const float one = queries[q][d];
#pragma unroll
        for (int i = 0; i < 8; ++i) scores[q][i] = fmaf(one, key[i], scores[q][i]);
      }
    }
    const int place = place_of_sum(lane);
    const std::int64_t position = page * kPage + place;
    const bool seen = position >= begin && position < end;
#pragma unroll
    for (int q = 0; q < kQueries; ++q) {
      float score = scattered_sum(scores[q], lane);
      if constexpr (kScaled<T>) score = score * head.key_scales[place];
      if (p.slopes != nullptr && q < count)
        score = fmaf(p.slopes[first_head + q] * 1.44269504f, static_cast<float>(position - here), score);
      float top = seen ? score : kHidden;
      for (int width = 1; width < 32; width *= 2)
        if (width != 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, width));
      const float now = fmaxf(most[q], top), keep = exp2f(most[q] - now);
      float weight = seen ? exp2f(score - now) : 0.0f;
      total[q] = fmaf(total[q], keep, lane & 2 ? 0.0f : weight);
      most[q] = now;
      if constexpr (kScaled<T>) weight = seen ? weight * head.value_scales[place] : 0.0f;
      if (!(lane & 2)) weights[warp][q][place] = weight;
#pragma unroll
      for (int i = 0; i < 8; ++i) sum[q][i] = sum[q][i] * keep;
    }
    __syncwarp();
#pragma unroll
    for (int step = 0; step < kPage / kValuesAtOnce; ++step) {
      const int at = step * kValuesAtOnce + value_row;
      const bool read = page * kPage + at >= begin && page * kPage + at < end;
      if (!read || of_value >= p.head_size) continue;
      float value[8];
      load_items(head.values + at * p.head_size + of_value, value);
#pragma unroll
      for (int q = 0; q < kQueries; ++q) {
        const float weight = weights[warp][q][at];
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[q][i] = fmaf(weight, value[i], sum[q][i]);
      }
    }
    __syncwarp();  // before others overwrite the weights
  }
#pragma unroll
  for (int q = 0; q < kQueries; ++q) {
    for (int width = 1; width < 32; width *= 2)
      total[q] = total[q] + __shfl_xor_sync(0xffffffffu, total[q], width);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      for (int width = kLanesOfValue; width < 32; width *= 2)
        sum[q][i] = sum[q][i] + __shfl_xor_sync(0xffffffffu, sum[q][i], width);
    if (lane < kLanesOfValue)
#pragma unroll
      for (int i = 0; i < 8; ++i) sums[warp][q][of_value + i] = sum[q][i];
    if (lane == 0) mosts[warp][q] = most[q], totals[warp][q] = total[q];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < count * p.head_size; i += kFewThreads) {
    const int q = i / p.head_size, d = i % p.head_size;
    float top = mosts[0][q];
    for (int w = 1; w < kFewWarps; ++w) top = fmaxf(top, mosts[w][q]);
    float of = 0, all_of = 0;
    for (int w = 0; w < kFewWarps; ++w) {
      const float factor = exp2f(mosts[w][q] - top);
      of = fmaf(sums[w][q][d], factor, of);
      all_of = fmaf(totals[w][q], factor, all_of);
    }
    const int at_head = first_head + q;
    if (parts.data == nullptr) {
      put_one(p.out, row, std::int64_t{at_head} * p.head_size + d, of * (1.0f / all_of));
      continue;
    }
    float* const to = parts.of(row, at_head, span);
    to[d] = of;
    if (d == 0) to[p.head_size] = top, to[p.head_size + 1] = all_of;
  }
}

// The spans of a row in their order: a block for a row and head.
__global__ void __launch_bounds__(kMostHeadSize)
    merge_spans(const __grid_constant__ Attention p, const __grid_constant__ Parts parts) {
  const std::int64_t row = parts.first_row + blockIdx.x;
  const int head = blockIdx.y, d = threadIdx.x;
  if ((!parts.all && p.counts[p.owners[row]] > kFewRows) || d >= p.head_size) return;
  const std::int64_t here = p.position(row);
  const std::int64_t begin = p.first_seen(here) / kSpan, end = here / kSpan + 1;
  float top = kHidden;
  for (std::int64_t span = begin; span < end; ++span)
    top = fmaxf(top, parts.of(row, head, span)[p.head_size]);
  float of = 0, all_of = 0;
  for (std::int64_t span = begin; span < end; ++span) {
    const float* const part = parts.of(row, head, span);
    const float factor = exp2f(part[p.head_size] - top);
    of = fmaf(part[d], factor, of);
    all_of = fmaf(part[p.head_size + 1], factor, all_of);
  }
  put_one(p.out, row, std::int64_t{head} * p.head_size + d, of * (1.0f / all_of));
}

}  // namespace oarlock::cuda::decoder
