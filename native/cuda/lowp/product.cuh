// Products on tensor cores: tiles of both operands on their way into shared memory while the tile
// before is multiplied.
#pragma once

#include <type_traits>

#include "lowp/multiply.cuh"
#include "lowp/primitives.cuh"

namespace oarlock::cuda::lowp {

constexpr bool is_integer(Numbers numbers) {
  return numbers == Numbers::int8 || numbers == Numbers::int16;
}
template <Numbers numbers>
using SumOf = std::conditional_t<is_integer(numbers), std::int32_t, float>;

// Rows [first, first + rows) of an operand, kTileBytes of each from `begin` on.
template <int rows, int threads>
__device__ inline void load_rows(char* shared, const char* data, std::int64_t pitch,
                                 std::int64_t first, std::int64_t all, std::int64_t begin) {
  for (int i = threadIdx.x; i < rows * kVectors; i += threads) {
    const int row = i / kVectors, vector = i % kVectors;
    const std::int64_t place = begin + vector * kVectorBytes;
    const bool valid = first + row < all && place < pitch;
    copy_async(shared + swizzled(row, vector),
               valid ? data + (first + row) * pitch + place : data, valid);
  }
}

// The sums of a warp, and what it multiplies to get them.
template <Numbers numbers, typename Tile>
struct Warp {
  using Sum = SumOf<numbers>;
  int lane, first_row, first_column;  // in the block's tile
  Sum sums[Tile::kDown][Tile::kAcross][4] = {};

  // Adds the products of 32 bytes of a and of b, the a_step-th and the b_step-th of a tile.
  __device__ void add(const char* a_tile, const char* b_tile, int a_step, int b_step) {
    std::uint32_t a[Tile::kDown][4], b[Tile::kAcross / 2][2][2];
#pragma unroll
    for (int i = 0; i < Tile::kDown; ++i)
      load_matrices(a_tile + swizzled(first_row + i * kFragmentRows + row_of_a(lane),
                                      a_step * 2 + vector_of_a(lane)),
                    a[i]);
#pragma unroll
    for (int j = 0; j < Tile::kAcross / 2; ++j) {
      std::uint32_t four[4];
      load_matrices(b_tile + swizzled(first_column + j * 2 * kFragmentColumns + column_of_b(lane),
                                      b_step * 2 + vector_of_b(lane)),
                    four);
      b[j][0][0] = four[0], b[j][0][1] = four[1], b[j][1][0] = four[2], b[j][1][1] = four[3];
    }
#pragma unroll
    for (int i = 0; i < Tile::kDown; ++i)
#pragma unroll
      for (int j = 0; j < Tile::kAcross; ++j)
        multiply_add<numbers>(sums[i][j], a[i], b[j / 2][j % 2]);
  }

  // Calls body(sum, row in the block's tile, column, i, j, k) for each sum.
  template <typename Body>
  __device__ void for_each(const Body& body) {
#pragma unroll
    for (int i = 0; i < Tile::kDown; ++i)
#pragma unroll
      for (int j = 0; j < Tile::kAcross; ++j)
#pragma unroll
        for (int k = 0; k < 4; ++k)
          body(sums[i][j][k], first_row + i * kFragmentRows + row_of_sum(lane, k),
               first_column + j * kFragmentColumns + column_of_sum(lane, k), i, j, k);
  }

  __device__ void next_digit() {
    for_each([](Sum& sum, int, int, int, int, int) {
      sum = static_cast<Sum>(static_cast<std::uint32_t>(sum) << 8);
    });
  }

  // int16: the steps are pairs of low and high digits, two in a tile; the high digits first.
  __device__ void add_digits(const char* a_tile, const char* b_tile, int begin, int end) {
    for (int pair = begin; pair < end; ++pair) add(a_tile, b_tile, 2 * pair + 1, 2 * pair + 1);
    next_digit();
    for (int pair = begin; pair < end; ++pair) {
      add(a_tile, b_tile, 2 * pair + 1, 2 * pair);
      add(a_tile, b_tile, 2 * pair, 2 * pair + 1);
    }
    next_digit();
    for (int pair = begin; pair < end; ++pair) add(a_tile, b_tile, 2 * pair, 2 * pair);
  }
};

// `blocked`: sums are scaled after each interval, and added up as float32.
template <Numbers numbers, typename Tile, bool blocked>
__global__ void __launch_bounds__(Tile::kThreads)
    multiply_tiles(const __grid_constant__ Product p) {
  constexpr int kStepsHere = numbers == Numbers::int16 ? kSteps / 2 : kSteps;
  const Finish& f = p.finish;
  const TilePlace place =
      tile_of_block(blockIdx.x, (f.rows + Tile::kRows - 1) / Tile::kRows,
                    (f.columns + Tile::kColumns - 1) / Tile::kColumns);
  const std::int64_t row = place.down * Tile::kRows, column = place.across * Tile::kColumns;
  const int warp = threadIdx.x / kLanes;
  Warp<numbers, Tile> work{static_cast<int>(threadIdx.x % kLanes), Tile::first_row(warp),
                           Tile::first_column(warp)};
  float totals[blocked ? Tile::kDown : 1][blocked ? Tile::kAcross : 1][4] = {};
  std::int64_t done = 0, interval = 0;  // steps of the interval, and its index

  char* const shared = dynamic_shared();
  const std::int64_t tiles = (p.steps + kStepsHere - 1) / kStepsHere;
  const auto load = [&](std::int64_t tile) {
    if (tile < tiles) {
      char* const stage = shared + tile % kStages * Tile::kStageBytes;
      load_rows<Tile::kRows, Tile::kThreads>(stage, p.a, p.a_pitch, row, f.rows,
                                             tile * kTileBytes);
      load_rows<Tile::kColumns, Tile::kThreads>(stage + Tile::kRows * kTileBytes, p.b, p.b_pitch,
                                                column, f.columns, tile * kTileBytes);
    }
    commit_copies();
  };
  // Scales what was summed since the last time.
  const auto flush = [&] {
    if constexpr (blocked) {
      const std::int64_t block = interval / p.intervals_of_block;
      const bool first = interval == 0;
      float of_rows[Tile::kDown][2], of_columns[Tile::kAcross][2];
#pragma unroll
      for (int i = 0; i < 2 * Tile::kDown; ++i) {
        const std::int64_t m = row + work.first_row + i / 2 * kFragmentRows +
                               row_of_sum(work.lane, i % 2 * 2);
        of_rows[i / 2][i % 2] = f.row_scales[block * f.rows + min(m, f.rows - 1)];
      }
#pragma unroll
      for (int j = 0; j < 2 * Tile::kAcross; ++j) {
        const std::int64_t n = column + work.first_column + j / 2 * kFragmentColumns +
                               column_of_sum(work.lane, j % 2);
        of_columns[j / 2][j % 2] = f.column_scales[block * f.columns + min(n, f.columns - 1)];
      }
      work.for_each([&](auto& sum, int, int, int i, int j, int k) {
        const float x = static_cast<float>(sum) * of_columns[j][k % 2] * of_rows[i][k / 2];
        totals[i][j][k] = first ? x : totals[i][j][k] + x;
        sum = 0;
      });
      ++interval;
      done = 0;
    }
  };

  for (int tile = 0; tile < kStages - 1; ++tile) load(tile);
  for (std::int64_t tile = 0; tile < tiles; ++tile) {
    wait_for_copies<kStages - 2>();
    __syncthreads();  // the tile is here, and nobody reads the one before it any more
    load(tile + kStages - 1);
    const char* const a_tile = shared + tile % kStages * Tile::kStageBytes;
    const char* const b_tile = a_tile + Tile::kRows * kTileBytes;
    const std::int64_t left = p.steps - tile * kStepsHere;
    if constexpr (numbers == Numbers::int16) {
      const int here = left < kStepsHere ? left : kStepsHere;
      const int per = p.interval < here ? p.interval : here;
      for (int step = 0; step < here; step += per) {
        work.add_digits(a_tile, b_tile, step, min(step + per, here));
        flush();
      }
    } else {
#pragma unroll
      for (int step = 0; step < kStepsHere; ++step) {
        if (step >= left) break;
        work.add(a_tile, b_tile, step, step);
        if (blocked && ++done == p.interval) flush();
      }
    }
  }
  if (blocked && done > 0) flush();

  // Through shared memory, so that whole rows are written, and by little code.
  wait_for_copies<0>();
  __syncthreads();
  using Kept = std::conditional_t<blocked, float, SumOf<numbers>>;
  Kept* const kept = reinterpret_cast<Kept*>(shared);
  work.for_each([&](auto sum, int r, int c, int i, int j, int k) {
    if constexpr (blocked)
      kept[r * Tile::kSumPitch + c] = totals[i][j][k];
    else
      kept[r * Tile::kSumPitch + c] = sum;
  });
  __syncthreads();
  constexpr int kPairs = Tile::kColumns / 2;
  for (int i = threadIdx.x; i < Tile::kRows * kPairs; i += Tile::kThreads) {
    const int r = i / kPairs, c = i % kPairs * 2;
    const std::int64_t m = row + r, n = column + c;
    if (m >= f.rows || n >= f.columns) continue;
    float x[2];
    for (int t = 0; t < 2; ++t) {
      const std::int64_t at = min(n + t, f.columns - 1);
      const Kept sum = kept[r * Tile::kSumPitch + c + t];
      x[t] = f.value(blocked ? static_cast<float>(sum) : f.scaled(sum, 0, m, at), at);
    }
    f.put_two(m, n, x[0], x[1]);
  }
}

// Products in float32, one after the other along the reduction, so that the bits are the CPU's.
constexpr int kPlainTile = 64, kPlainDepth = 16, kPlainThreads = 256, kPlainShare = 4;

__global__ void __launch_bounds__(kPlainThreads)
    multiply_floats(const __grid_constant__ Product p) {
  __shared__ float a[kPlainDepth][kPlainTile + 1], b[kPlainDepth][kPlainTile + 1];
  const Finish& f = p.finish;
  const TilePlace place = tile_of_block(blockIdx.x, (f.rows + kPlainTile - 1) / kPlainTile,
                                        (f.columns + kPlainTile - 1) / kPlainTile);
  const std::int64_t row = place.down * kPlainTile, column = place.across * kPlainTile;
  const int down = threadIdx.x / 16, across = threadIdx.x % 16;
  float sums[kPlainShare][kPlainShare] = {};
  const auto element = [](const char* data, std::int64_t pitch, std::int64_t at, std::int64_t all,
                          std::int64_t k, std::int64_t depth) {
    return at < all && k < depth ? reinterpret_cast<const float*>(data + at * pitch)[k] : 0.0f;
  };
  for (std::int64_t begin = 0; begin < p.steps; begin += kPlainDepth) {  // steps of one element
    for (int i = threadIdx.x; i < kPlainTile * kPlainDepth; i += kPlainThreads) {
      const int at = i / kPlainDepth, k = i % kPlainDepth;
      a[k][at] = element(p.a, p.a_pitch, row + at, f.rows, begin + k, p.steps);
      b[k][at] = element(p.b, p.b_pitch, column + at, f.columns, begin + k, p.steps);
    }
    __syncthreads();
    const int here = min(static_cast<std::int64_t>(kPlainDepth), p.steps - begin);
    for (int k = 0; k < here; ++k)
#pragma unroll
      for (int i = 0; i < kPlainShare; ++i)
#pragma unroll
        for (int j = 0; j < kPlainShare; ++j)
          sums[i][j] = fmaf(a[k][down + 16 * i], b[k][across + 16 * j], sums[i][j]);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kPlainShare; ++i)
#pragma unroll
    for (int j = 0; j < kPlainShare; ++j) {
      const std::int64_t m = row + down + 16 * i, n = column + across + 16 * j;
      if (m < f.rows && n < f.columns) f.put(m, n, f.value(sums[i][j], n));
    }
}

}  // namespace oarlock::cuda::lowp
