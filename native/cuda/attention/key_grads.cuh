// Gradients of keys and values on tensor cores: a block for a tile of keys, over the rows of all heads of queries that
// they serve, in order: nothing is added up by atomic operations, and calls give equal bits.
#pragma once

#include "attention/query_grads.cuh"

namespace oarlock::cuda::attention {

template <typename T>
struct KeyGradsMemory {
  static constexpr int kTile = T::kColumns * T::kPitch, kNumbers = 2 * kTile;  // queries, gradients, numbers of rows
  static constexpr int kStage = kNumbers + T::kColumns * static_cast<int>(sizeof(RowNumbers));
  static constexpr int kKeys = T::kRows * T::kPitch;
  static constexpr int kBytes = 2 * kKeys + 2 * kStage;
};

// `kept`: keys and values stay in registers.
template <typename T, bool kept>
__global__ void __launch_bounds__(T::kThreads, T::kResident)
    key_grads(const __grid_constant__ Call call, const __grid_constant__ Backward given, bfloat16* k_grad,
              bfloat16* v_grad) {
  using M = KeyGradsMemory<T>;
  const AttentionShape& s = call.s;
  char* const shared = lowp::dynamic_shared();
  char* const stages = shared + 2 * M::kKeys;
  const Place place(blockIdx.x, s, s.kv_heads);
  const std::int64_t first = place.tile * T::kRows;
  const int lane = threadIdx.x % kLanes, warp_key = threadIdx.x / kLanes * T::kWarpRows;
  const std::int64_t key = first + warp_key + lane / 4;

  const std::int64_t group = call.mask.group(place.batch, place.head, first);
  const auto see = [&](std::int32_t tile, int from, int keys) {
    const std::int64_t row = static_cast<std::int64_t>(tile) * T::kColumns;
    return look(call.mask.extremes + (group + from / kGroup) * 2, (keys + kGroup - 1) / kGroup,
                static_cast<std::int32_t>(row), static_cast<std::int32_t>(min(row + T::kColumns, s.rows)));
  };
  const auto see_tile = [&](std::int32_t tile) { return see(tile, 0, T::kRows); };
  unsigned heads_left = call.heads_of_keys();
  Walk<decltype(see_tile)> walk(heads_left == 0 ? 0 : (s.rows + T::kColumns - 1) / T::kColumns, see_tile);
  const std::int64_t first_head = place.head * heads_left;
  Rows<T> queries(call.q, place.batch, s.rows, s.heads, first_head, s.dim);
  Rows<T> grads(given.out_grad, place.batch, s.rows, s.heads, first_head, s.dim);
  const RowNumbers* numbers = given.rows + (place.batch * s.heads + first_head) * given.padded + threadIdx.x * 2;
  const auto step_on = [&] {
    auto next = walk.next();
    if (next.tile < 0 && heads_left > 1) {
      --heads_left;
      queries.from += s.dim * 2;
      grads.from += s.dim * 2;
      numbers += given.padded;
      walk.restart();
      next = walk.next();
    }
    return next;
  };
  const auto fetch = [&](std::int32_t tile, char* stage) {
    if (tile >= 0) {
      const std::int32_t row = tile * T::kColumns;
      queries.template copy<T::kColumns>(stage, row);
      grads.template copy<T::kColumns>(stage + M::kTile, row);
      if (threadIdx.x < T::kColumns / 2)
        lowp::copy_async(stage + M::kNumbers + threadIdx.x * 16,
                         reinterpret_cast<const char*>(numbers + row), true);
    }
    lowp::commit_copies();
  };

  Rows<T>(call.k, place.batch, s.keys, s.kv_heads, place.head, s.dim)
      .template copy<T::kRows>(shared, static_cast<std::int32_t>(first));
  Rows<T>(call.v, place.batch, s.keys, s.kv_heads, place.head, s.dim)
      .template copy<T::kRows>(shared + M::kKeys, static_cast<std::int32_t>(first));
  lowp::commit_copies();
  auto now = step_on();
  fetch(now.tile, stages);
  constexpr int kKept = kept ? T::kSteps : 1;
  std::uint32_t keys[T::kBlocks][kKept][4], values[T::kBlocks][kKept][4];
  if constexpr (kept) {
    lowp::wait_for_copies<1>();
    __syncthreads();
#pragma unroll
    for (int m = 0; m < T::kBlocks; ++m)
#pragma unroll
      for (int step = 0; step < T::kSteps; ++step) {
        load_left<T>(shared, warp_key + m * 16, step, keys[m][step]);
        load_left<T>(shared + M::kKeys, warp_key + m * 16, step, values[m][step]);
      }
  }
  const auto left_of = [&](const auto& registers, const char* tile) {
    if constexpr (kept)
      return kept_in<T>(registers);
    else
      return [tile, warp_key](int m, int step, std::uint32_t(&a)[4]) {
        load_left<T>(tile, warp_key + m * 16, step, a);
      };
  };
  const auto left_keys = left_of(keys, shared), left_values = left_of(values, shared + M::kKeys);

  const float scale = s.scale * kLog2E;
  float key_sums[T::kBlocks][T::kDim / 8][4] = {}, value_sums[T::kBlocks][T::kDim / 8][4] = {};
  for (int stage = 0; now.tile >= 0; stage ^= 1) {
    lowp::wait_for_copies<0>();
    __syncthreads();
    const auto next = step_on();
    fetch(next.tile, stages + (stage ^ 1) * M::kStage);
    const char* const tile = stages + stage * M::kStage;
    with_sight(now.every ? Sight::every : see(now.tile, warp_key, T::kWarpRows), [&](auto some) {
      const float4* const pairs =  // the numbers of two rows
          reinterpret_cast<const float4*>(tile + M::kNumbers) + lane % 4;
      float weights[T::kBlocks][T::kColumns / 8][4] = {}, changes[T::kBlocks][T::kColumns / 8][4] = {};
      add_scores<T>(weights, left_keys, tile);
      add_scores<T>(changes, left_values, tile + M::kTile);
#pragma unroll
      for (int n = 0; n < T::kColumns / 8; ++n) {
        const float4 two = pairs[n * 4];
#pragma unroll
        for (int m = 0; m < T::kBlocks; ++m)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            weights[m][n][i] = power_of_two(fmaf(weights[m][n][i], scale, i % 2 ? -two.z : -two.x));
      }
      if constexpr (some.value)
        hide_rows<T>(weights, call.mask.keys + group * kGroup + warp_key + lane / 4,
                     static_cast<std::uint32_t>(now.tile * T::kColumns), 0.0f);
#pragma unroll
      for (int n = 0; n < T::kColumns / 8; ++n) {
        const float4 two = pairs[n * 4];
#pragma unroll
        for (int m = 0; m < T::kBlocks; ++m)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            changes[m][n][i] = weights[m][n][i] * (changes[m][n][i] - (i % 2 ? two.w : two.y));
      }
      add_weighted<T>(value_sums, weights, tile + M::kTile);
      add_weighted<T>(key_sums, changes, tile);
    });
    now = next;
  }
  lowp::wait_for_copies<0>();  // of keys and values that no row sees
  const std::int64_t stride = s.kv_heads * s.dim;
  const auto store_all = [&](const auto& sums, bfloat16* to, float factor) {
    store<T>(sums, row_of(to, place.batch, s.keys, 0, s.kv_heads, place.head, s.dim), stride, s.keys,
             static_cast<int>(s.dim), key, [&](int, int) { return factor; });
  };
  store_all(key_sums, k_grad, s.scale);
  store_all(value_sums, v_grad, 1.0f);
}

}  // namespace oarlock::cuda::attention
