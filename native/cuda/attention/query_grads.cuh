// Gradients of queries on tensor cores: a block for a tile of queries of one head. What the gradients of keys need to
// know of a row, its log-sum-exp and its sum of out * out_grad, is left for them.
#pragma once

#include "attention/tiles.cuh"

namespace oarlock::cuda::attention {

// Of a row: L log2 e, infinite past the last row, and delta.
struct alignas(8) RowNumbers {
  float log_sum, delta;
};

struct Backward {
  const bfloat16 *out, *out_grad;
  const float* lse;
  RowNumbers* rows;     // [batch, heads, padded]
  std::int64_t padded;  // rows, and some more for whole tiles
};

template <typename T>
struct QueryGradsMemory {
  static constexpr int kQueries = T::kRows * T::kPitch;
  static constexpr int kBytes = 3 * kQueries + 2 * KeyTiles<T>::kStage;
};

template <typename T>
__global__ void __launch_bounds__(T::kThreads, T::kResident)
    query_grads(const __grid_constant__ Call call, const __grid_constant__ Backward given,
                bfloat16* q_grad) {
  using M = QueryGradsMemory<T>;
  const AttentionShape& s = call.s;
  char* const shared = lowp::dynamic_shared();
  const Place place(gridDim.x - 1 - blockIdx.x, s, s.heads);
  const std::int64_t kv_head = place.head / call.heads_of_keys(), first = place.tile * T::kRows;
  const std::int64_t head = place.batch * s.heads + place.head;
  const int lane = threadIdx.x % kLanes, warp_row = threadIdx.x / kLanes * T::kWarpRows;
  const std::int64_t row = first + warp_row + lane / 4;
  char* const stages = shared + 3 * M::kQueries;
  const KeyTiles<T> tiles(call, place, kv_head, first);
  Walk<KeyTiles<T>> walk((s.keys + T::kColumns - 1) / T::kColumns, tiles);

  const bfloat16* const of_rows[3] = {call.q, given.out_grad, given.out};
  for (int i = 0; i < 3; ++i)
    Rows<T>(of_rows[i], place.batch, s.rows, s.heads, place.head, s.dim)
        .template copy<T::kRows>(shared + i * M::kQueries, static_cast<std::int32_t>(first));
  lowp::commit_copies();
  auto now = walk.next();
  tiles.fetch(now.tile, stages);
  lowp::wait_for_copies<1>();
  __syncthreads();
  std::uint32_t queries[T::kBlocks][T::kSteps][4], grads[T::kBlocks][T::kSteps][4];
  float log_sum[T::kBlocks][2], delta[T::kBlocks][2] = {};
#pragma unroll
  for (int m = 0; m < T::kBlocks; ++m) {
#pragma unroll
    for (int step = 0; step < T::kSteps; ++step) {
      std::uint32_t outs[4];
      load_left<T>(shared, warp_row + m * 16, step, queries[m][step]);
      load_left<T>(shared + M::kQueries, warp_row + m * 16, step, grads[m][step]);
      load_left<T>(shared + 2 * M::kQueries, warp_row + m * 16, step, outs);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const std::uint32_t a = grads[m][step][i], b = outs[i];
        float& sum = delta[m][i % 2];
        sum = fmaf(path::from_bits(a << 16), path::from_bits(b << 16), sum);
        sum = fmaf(path::from_bits(a & 0xffff0000u), path::from_bits(b & 0xffff0000u), sum);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t at = row + m * 16 + half * 8;
      delta[m][half] = sum_of_lanes(delta[m][half]);
      log_sum[m][half] = at < s.rows ? given.lse[head * s.rows + at] * kLog2E : INFINITY;
      if (lane % 4 == 0) given.rows[head * given.padded + at] = {log_sum[m][half], delta[m][half]};
    }
  }

  const float scale = s.scale * kLog2E;
  float sums[T::kBlocks][T::kDim / 8][4] = {};
  for (int stage = 0; now.tile >= 0; stage ^= 1) {
    lowp::wait_for_copies<0>();
    __syncthreads();
    const auto next = walk.next();
    tiles.fetch(next.tile, stages + (stage ^ 1) * KeyTiles<T>::kStage);
    const char* const tile = stages + stage * KeyTiles<T>::kStage;
    with_sight(now.every ? Sight::every : tiles.see(now.tile, first + warp_row, T::kWarpRows), [&](auto some) {
      float weights[T::kBlocks][T::kColumns / 8][4] = {}, changes[T::kBlocks][T::kColumns / 8][4] = {};
      add_scores<T>(weights, kept_in<T>(queries), tile);
      add_scores<T>(changes, kept_in<T>(grads), tile + KeyTiles<T>::kTile);
#pragma unroll
      for (int m = 0; m < T::kBlocks; ++m)
#pragma unroll
        for (int n = 0; n < T::kColumns / 8; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            weights[m][n][i] = power_of_two(fmaf(weights[m][n][i], scale, -log_sum[m][i / 2])) *
                               (changes[m][n][i] - delta[m][i / 2]);
      if constexpr (some.value)
        hide_keys<T>(weights, tiles.hidden(now.tile), static_cast<std::uint32_t>(row), 0.0f);
      add_weighted<T>(sums, weights, tile);
    });
    now = next;
  }
  store<T>(sums, row_of(q_grad, place.batch, s.rows, 0, s.heads, place.head, s.dim), s.heads * s.dim,
           s.rows, static_cast<int>(s.dim), row, [&](int, int) { return s.scale; });
}

}  // namespace oarlock::cuda::attention
