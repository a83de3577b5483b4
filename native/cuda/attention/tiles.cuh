// Tiles of bfloat16 in shared memory, and their products on tensor cores.
//
// A warp has 16 or 32 rows of one side (queries or keys), most of the time in registers; of the other side `columns` at
// a time come through shared memory, in two stages, so that copies of one tile run while the other is multiplied.
// Weights never leave registers: sums of one product lie as the next one takes its left side.
#pragma once

#include "attention/mask.cuh"
#include "attention/primitives.cuh"

namespace oarlock::cuda::attention {

using bfloat16 = std::uint16_t;  // its bits

constexpr int kFragment = 16;  // rows of a product, and its depth
constexpr float kLog2E = 1.44269504088896340736f, kLn2 = 0.693147180559945309417f;

// A block's share of the work: `resident` blocks fit on a multiprocessor, as far as registers go.
template <int dim, int blocks, int columns, int resident, int warps = 4>
struct Tiling {
  static constexpr int kDim = dim, kBlocks = blocks, kColumns = columns, kResident = resident;
  static constexpr int kThreads = warps * kLanes, kWarpRows = blocks * kFragment;
  static constexpr int kRows = warps * kWarpRows;
  // Of a row in shared memory: eight of them begin in different banks.
  static constexpr int kPitch = 2 * dim + 16;
  static constexpr int kSteps = dim / kFragment;
};

struct Call {
  AttentionShape s;
  Mask mask;
  const bfloat16 *q, *k, *v;

  __device__ unsigned heads_of_keys() const {
    return static_cast<unsigned>(s.heads) / static_cast<unsigned>(s.kv_heads);
  }
};

// Which tile of which head a block has; blocks of a tile's number stand together.
struct Place {
  std::int64_t tile, head, batch;
  __device__ Place(unsigned block, const AttentionShape& s, std::int64_t all_heads) {
    const auto heads = static_cast<unsigned>(all_heads), rest = block / heads;
    head = block % heads;
    batch = rest % static_cast<unsigned>(s.batch);
    tile = rest / static_cast<unsigned>(s.batch);
  }
};

// What a thread copies of the rows of one head of [batch, length, heads, dim]: a piece of 16 bytes of every few rows.
// Zeros past the end and past dim.
template <typename T>
struct Rows {
  static constexpr int kPieces = T::kDim / 8, kAtOnce = T::kThreads / kPieces;
  const char* from;     // the thread's first piece
  std::int64_t stride;  // bytes
  int to, left;         // in a tile; rows from its first on

  __device__ Rows(const bfloat16* all, std::int64_t batch, std::int64_t length, std::int64_t heads,
                  std::int64_t head, std::int64_t dim)
      : stride(heads * dim * 2) {
    const int piece = threadIdx.x % kPieces, row = threadIdx.x / kPieces;
    from = reinterpret_cast<const char*>(row_of(all, batch, length, row, heads, head, dim) + piece * 8);
    to = row * T::kPitch + piece * 16;
    left = piece * 8 < dim ? static_cast<int>(length) - row : 0;
  }

  // Rows [first, first + rows).
  template <int rows>
  __device__ void copy(char* tile, std::int32_t first) const {
    static_assert(T::kThreads % kPieces == 0 && rows % kAtOnce == 0);
    const char* piece = from + first * stride;
    const int here = left - first;
#pragma unroll
    for (int i = 0; i < rows; i += kAtOnce, piece += kAtOnce * stride)
      lowp::copy_async(tile + to + i * T::kPitch, piece, i < here);
  }
};

// Tiles of keys and values as a block of queries goes through them.
template <typename T>
class KeyTiles {
 public:
  static constexpr int kTile = T::kColumns * T::kPitch, kStage = 2 * kTile;

  // Of the block's queries `first` is the first.
  __device__ KeyTiles(const Call& call, const Place& place, std::int64_t kv_head, std::int64_t first)
      : keys_(call.k, place.batch, call.s.keys, call.s.kv_heads, kv_head, call.s.dim),
        values_(call.v, place.batch, call.s.keys, call.s.kv_heads, kv_head, call.s.dim), first_(first),
        rows_(call.s.rows) {
    const std::int64_t group = call.mask.group(place.batch, kv_head, 0);
    extremes_ = call.mask.extremes + group * 2;
    hidden_ = call.mask.keys + group * kGroup;
  }

  // What `count` queries see of a tile, and what all of the block do.
  __device__ Sight see(std::int32_t tile, std::int64_t begin, int count) const {
    constexpr int kGroups = T::kColumns / kGroup;
    return look(extremes_ + tile * kGroups * 2, kGroups, static_cast<std::int32_t>(begin),
                static_cast<std::int32_t>(min(begin + count, rows_)));
  }
  __device__ Sight operator()(std::int32_t tile) const { return see(tile, first_, T::kRows); }

  __device__ const Hidden* hidden(std::int32_t tile) const { return hidden_ + tile * T::kColumns; }

  // Begins to copy a tile, keys before values; of none (negative) an empty group of copies.
  __device__ void fetch(std::int32_t tile, char* stage) const {
    if (tile >= 0) {
      keys_.template copy<T::kColumns>(stage, tile * T::kColumns);
      values_.template copy<T::kColumns>(stage + kTile, tile * T::kColumns);
    }
    lowp::commit_copies();
  }

 private:
  Rows<T> keys_, values_;
  std::int64_t first_, rows_;
  const Extremes* extremes_;
  const Hidden* hidden_;
};

// A left side in registers, for add_scores.
template <typename T, int steps>
__device__ auto kept_in(const std::uint32_t (&registers)[T::kBlocks][steps][4]) {
  return [&registers](int m, int step, std::uint32_t(&a)[4]) {
    for (int i = 0; i < 4; ++i) a[i] = registers[m][step][i];
  };
}

// The left side of a product, from 16 rows of a tile.
template <typename T>
__device__ void load_left(const char* tile, int row, int step, std::uint32_t (&a)[4]) {
  const int lane = threadIdx.x % kLanes;
  lowp::load_matrices(tile + (row + lane % 16) * T::kPitch + step * 32 + lane / 16 * 16, a);
}

// sums += left tile^T; left(block, step, a) gives the left side.
template <typename T, typename Left>
__device__ void add_scores(float (&sums)[T::kBlocks][T::kColumns / 8][4], const Left& left,
                           const char* tile) {
  const int lane = threadIdx.x % kLanes;
  const char* const from = tile + (lane / 16 * 8 + lane % 8) * T::kPitch + lane / 8 % 2 * 16;
#pragma unroll
  for (int step = 0; step < T::kSteps; ++step) {
    std::uint32_t a[T::kBlocks][4];
#pragma unroll
    for (int m = 0; m < T::kBlocks; ++m) left(m, step, a[m]);
#pragma unroll
    for (int n = 0; n < T::kColumns / 16; ++n) {
      std::uint32_t b[4];
      lowp::load_matrices(from + n * 16 * T::kPitch + step * 32, b);
      const std::uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
#pragma unroll
      for (int m = 0; m < T::kBlocks; ++m) {
        lowp::multiply_add<lowp::Numbers::bf16>(sums[m][2 * n], a[m], low);
        lowp::multiply_add<lowp::Numbers::bf16>(sums[m][2 * n + 1], a[m], high);
      }
    }
  }
}

// sums += weights tile, with weights rounded to bfloat16.
template <typename T>
__device__ void add_weighted(float (&sums)[T::kBlocks][T::kDim / 8][4],
                             const float (&weights)[T::kBlocks][T::kColumns / 8][4], const char* tile) {
  const int lane = threadIdx.x % kLanes;
  const char* const from = tile + lane % 16 * T::kPitch + lane / 16 * 16;
#pragma unroll
  for (int step = 0; step < T::kColumns / kFragment; ++step) {
    std::uint32_t a[T::kBlocks][4];
#pragma unroll
    for (int m = 0; m < T::kBlocks; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&two)[4] = weights[m][2 * step + i / 2];
        a[m][i] = lowp::two_bfloat16(two[i % 2 * 2], two[i % 2 * 2 + 1]);
      }
#pragma unroll
    for (int n = 0; n < T::kDim / 16; ++n) {
      std::uint32_t b[4];
      load_transposed(from + step * 16 * T::kPitch + n * 32, b);
      const std::uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
#pragma unroll
      for (int m = 0; m < T::kBlocks; ++m) {
        lowp::multiply_add<lowp::Numbers::bf16>(sums[m][2 * n], a[m], low);
        lowp::multiply_add<lowp::Numbers::bf16>(sums[m][2 * n + 1], a[m], high);
      }
    }
  }
}

// Puts a value where bits say so: bit n * 4 + i is x[][n][i]'s.
template <typename T>
__device__ void put_where(float (&x)[T::kBlocks][T::kColumns / 8][4], const std::uint32_t (&bits)[T::kBlocks],
                          float value) {
  static_assert(T::kColumns <= 64);
#pragma unroll
  for (int m = 0; m < T::kBlocks; ++m)
#pragma unroll
    for (int n = 0; n < T::kColumns / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (bits[m] >> (n * 4 + i) & 1u) x[m][n][i] = value;
}

// Puts a value where a row does not see a key. Rows of x are queries, the lane's first is `row`; columns are `keys`.
template <typename T>
__device__ void hide_keys(float (&x)[T::kBlocks][T::kColumns / 8][4], const Hidden* keys,
                          std::uint32_t row, float value) {
  std::uint32_t bits[T::kBlocks] = {};
#pragma unroll 1
  for (int n = 0; n < T::kColumns / 8; ++n)
    for (int j = 0; j < 2; ++j) {
      const Hidden key = keys[n * 8 + threadIdx.x % 4 * 2 + j];
#pragma unroll
      for (int m = 0; m < T::kBlocks; ++m)
        for (int half = 0; half < 2; ++half)
          bits[m] |= static_cast<std::uint32_t>(key.hides(row + m * 16 + half * 8)) << (n * 4 + half * 2 + j);
    }
  put_where<T>(x, bits, value);
}

// Likewise; rows of x are keys, of which `keys` is the lane's first, and columns queries from `row` on.
template <typename T>
__device__ void hide_rows(float (&x)[T::kBlocks][T::kColumns / 8][4], const Hidden* keys,
                          std::uint32_t row, float value) {
  std::uint32_t bits[T::kBlocks] = {};
#pragma unroll
  for (int m = 0; m < T::kBlocks; ++m)
    for (int half = 0; half < 2; ++half) {
      const Hidden key = keys[m * 16 + half * 8];
#pragma unroll 1
      for (int n = 0; n < T::kColumns / 8; ++n)
        for (int j = 0; j < 2; ++j)
          bits[m] |= static_cast<std::uint32_t>(key.hides(row + n * 8 + threadIdx.x % 4 * 2 + j))
                     << (n * 4 + half * 2 + j);
    }
  put_where<T>(x, bits, value);
}

// Sums times factors into rows of one head, of which `row` is the lane's first; factor(block, half) is of its rows.
template <typename T, typename Factor>
__device__ void store(const float (&sums)[T::kBlocks][T::kDim / 8][4], bfloat16* data, std::int64_t stride,
                      std::int64_t length, int dim, std::int64_t row, const Factor& factor) {
#pragma unroll
  for (int m = 0; m < T::kBlocks; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const std::int64_t to = row + m * 16 + half * 8;
      if (to >= length) continue;
      const float times = factor(m, half);
#pragma unroll
      for (int n = 0; n < T::kDim / 8; ++n)
        if (n * 8 < dim)
          *reinterpret_cast<std::uint32_t*>(data + to * stride + n * 8 + threadIdx.x % 4 * 2) =
              lowp::two_bfloat16(sums[m][n][half * 2] * times, sums[m][n][half * 2 + 1] * times);
    }
}

// Over the four lanes that share a row.
__device__ inline float sum_of_lanes(float x) {
  x = x + __shfl_xor_sync(kWholeWarp, x, 1);
  return x + __shfl_xor_sync(kWholeWarp, x, 2);
}
__device__ inline float largest_of_lanes(float x) {
  x = fmaxf(x, __shfl_xor_sync(kWholeWarp, x, 1));
  return fmaxf(x, __shfl_xor_sync(kWholeWarp, x, 2));
}

}  // namespace oarlock::cuda::attention
