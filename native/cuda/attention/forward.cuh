// The forward pass on tensor cores: a block for a tile of queries of one head, keys and values by tiles.
#pragma once

#include <cfloat>

#include "attention/tiles.cuh"

namespace oarlock::cuda::attention {

template <typename T>
struct ForwardMemory {
  static constexpr int kQueries = T::kRows * T::kPitch;
  static constexpr int kBytes = kQueries + 2 * KeyTiles<T>::kStage;
};

template <typename T>
__global__ void __launch_bounds__(T::kThreads, T::kResident)
    forward(const __grid_constant__ Call call, bfloat16* out, float* lse) {
  using M = ForwardMemory<T>;
  const AttentionShape& s = call.s;
  char* const shared = lowp::dynamic_shared();
  // Under a causal mask the last rows are the most work: they come first.
  const Place place(gridDim.x - 1 - blockIdx.x, s, s.heads);
  const std::int64_t kv_head = place.head / call.heads_of_keys(), first = place.tile * T::kRows;
  const int lane = threadIdx.x % kLanes, warp_row = threadIdx.x / kLanes * T::kWarpRows;
  const std::int64_t row = first + warp_row + lane / 4;
  char* const stages = shared + M::kQueries;
  const KeyTiles<T> tiles(call, place, kv_head, first);
  Walk<KeyTiles<T>> walk((s.keys + T::kColumns - 1) / T::kColumns, tiles);

  Rows<T>(call.q, place.batch, s.rows, s.heads, place.head, s.dim)
      .template copy<T::kRows>(shared, static_cast<std::int32_t>(first));
  lowp::commit_copies();
  auto now = walk.next();
  tiles.fetch(now.tile, stages);
  lowp::wait_for_copies<1>();
  __syncthreads();
  // With the sign of the scale, which is exact, the largest score is the largest product.
  const std::uint32_t sign = s.scale < 0 ? 0x80008000u : 0u;
  const float scale = fmaxf(fabsf(s.scale) * kLog2E, FLT_MIN);  // hidden scores stay below all others
  std::uint32_t queries[T::kBlocks][T::kSteps][4];
#pragma unroll
  for (int m = 0; m < T::kBlocks; ++m)
#pragma unroll
    for (int step = 0; step < T::kSteps; ++step) {
      load_left<T>(shared, warp_row + m * 16, step, queries[m][step]);
#pragma unroll
      for (int i = 0; i < 4; ++i) queries[m][step][i] ^= sign;
    }

  float sums[T::kBlocks][T::kDim / 8][4] = {}, largest[T::kBlocks][2], total[T::kBlocks][2] = {};
#pragma unroll
  for (int m = 0; m < T::kBlocks; ++m) largest[m][0] = largest[m][1] = -INFINITY;
  for (int stage = 0; now.tile >= 0; stage ^= 1) {
    lowp::wait_for_copies<0>();
    __syncthreads();  // the tile has come for all, and nobody reads the one before it any more
    const auto next = walk.next();
    tiles.fetch(next.tile, stages + (stage ^ 1) * KeyTiles<T>::kStage);
    const char* const tile = stages + stage * KeyTiles<T>::kStage;
    with_sight(now.every ? Sight::every : tiles.see(now.tile, first + warp_row, T::kWarpRows), [&](auto some) {
      float scores[T::kBlocks][T::kColumns / 8][4] = {};
      add_scores<T>(scores, kept_in<T>(queries), tile);
      if constexpr (some.value)
        hide_keys<T>(scores, tiles.hidden(now.tile), static_cast<std::uint32_t>(row), -INFINITY);
      float keep[T::kBlocks][2];
      bool moved = false;
#pragma unroll
      for (int m = 0; m < T::kBlocks; ++m)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float most = largest[m][half];
#pragma unroll
          for (int n = 0; n < T::kColumns / 8; ++n)
            most = fmaxf(most, fmaxf(scores[m][n][half * 2], scores[m][n][half * 2 + 1]));
          most = largest_of_lanes(most);
          const float base = most == -INFINITY ? 0.0f : most * scale;
          keep[m][half] = power_of_two(fmaf(largest[m][half], scale, -base));
          moved |= keep[m][half] != 1.0f;
          largest[m][half] = most;
          float sum = 0;
#pragma unroll
          for (int n = 0; n < T::kColumns / 8; ++n)
#pragma unroll
            for (int i = half * 2; i < half * 2 + 2; ++i) {
              scores[m][n][i] = power_of_two(fmaf(scores[m][n][i], scale, -base));
              sum = sum + scores[m][n][i];
            }
          total[m][half] = fmaf(total[m][half], keep[m][half], sum);
        }
      if (__ballot_sync(kWholeWarp, moved) != 0)  // seldom after the first tiles
#pragma unroll
        for (int m = 0; m < T::kBlocks; ++m)
#pragma unroll
          for (int n = 0; n < T::kDim / 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[m][n][i] = sums[m][n][i] * keep[m][i / 2];
      add_weighted<T>(sums, scores, tile + KeyTiles<T>::kTile);
    });
    now = next;
  }

#pragma unroll
  for (int m = 0; m < T::kBlocks; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[m][half] = sum_of_lanes(total[m][half]);
      const std::int64_t to = row + m * 16 + half * 8;
      if (lane % 4 == 0 && to < s.rows)
        lse[(place.batch * s.heads + place.head) * s.rows + to] =
            total[m][half] == 0 ? -INFINITY
                                : fmaf(largest[m][half], scale, log2f(total[m][half])) * kLn2;
    }
  store<T>(sums, row_of(out, place.batch, s.rows, 0, s.heads, place.head, s.dim), s.heads * s.dim, s.rows,
           static_cast<int>(s.dim), row,
           [&](int m, int half) { return total[m][half] == 0 ? 0.0f : 1.0f / total[m][half]; });
}

}  // namespace oarlock::cuda::attention
