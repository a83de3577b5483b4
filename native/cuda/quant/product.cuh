// Products of rounded rows with weights of int8 and int4, on tensor cores.
//
// One mma.sync sums a group: 32 inputs of 16 outputs and 8 rows, exactly. Sums begin at 1.5 * 2^23 as bits, so that
// they are float32 numbers but for that constant, and no conversion is needed; int4 counts sixteenths, as
// its codes stay in the upper halves of bytes.
#pragma once

#include "lowp/primitives.cuh"
#include "quant/bricks.h"
#include "quant/numbers.cuh"

namespace oarlock::cuda::quant {

struct Product {
  const char* rows;     // bricks of kRowBrick
  const char* weights;  // bricks of the format
  const float* bias;    // [outputs], or null
  Target out;           // [count, outputs]
  bool accumulate;
  std::int64_t count, outputs, blocks;

  __device__ void put(std::int64_t row, std::int64_t output, float sum) const {
    if (bias != nullptr) sum = sum + bias[output];
    if (accumulate)
      sum = load_one({out.data, out.stride, out.narrow, false}, row, output) + sum;
    put_one(out, row, output, sum);
  }
};

constexpr int kStart = 0x4b400000;  // 12582912.0f; sums stay below 2^22

// What a lane has of a weight's brick.
template <Format format>
struct Weights {
  static constexpr int kWords = code_bytes(format) / 4 / kLanes;
  std::uint32_t codes[kWords], scales[2];

  __device__ void load(const char* brick, int lane) {
#pragma unroll
    for (int i = 0; i < kWords / 4; ++i) {
      const uint4 four = *reinterpret_cast<const uint4*>(brick + (i * kLanes + lane) * kLaneBytes);
      codes[4 * i] = four.x, codes[4 * i + 1] = four.y;
      codes[4 * i + 2] = four.z, codes[4 * i + 3] = four.w;
    }
    const uint2 two = *reinterpret_cast<const uint2*>(brick + code_bytes(format) + lane / 4 * 8);
    scales[0] = two.x, scales[1] = two.y;
  }

  // Of a group: for outputs r, r + 8, and then again the other inputs.
  __device__ void operands(int group, std::uint32_t (&a)[4]) const {
    if constexpr (format == Format::int8) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = codes[4 * group + i];
    } else {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        a[i] = codes[2 * group + i] << 4 & 0xf0f0f0f0u;
        a[i + 2] = codes[2 * group + i] & 0xf0f0f0f0u;
      }
    }
  }

  // Of outputs r and r + 8, groups 0 and 1 of each.
  __device__ void factors(float (&of)[2][2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float2 two = lowp::halves(scales[i]);
      of[i][0] = format == Format::int4 ? two.x * 0.0625f : two.x;
      of[i][1] = format == Format::int4 ? two.y * 0.0625f : two.y;
    }
  }
};

// What a lane has of a brick of rows: codes of row r, scales of rows 2 t and 2 t + 1.
struct Rows {
  std::uint32_t codes[4];
  float scales[2][2];

  // Unless `here`, row r is not there, and its zeros are not read.
  __device__ void load(const char* brick, int lane, bool here) {
    const uint4 four =
        here ? *reinterpret_cast<const uint4*>(brick + lane * kLaneBytes) : uint4{0, 0, 0, 0};
    codes[0] = four.x, codes[1] = four.y, codes[2] = four.z, codes[3] = four.w;
    const uint4 of = *reinterpret_cast<const uint4*>(brick + kRowCodes + lane % 4 * 16);
    scales[0][0] = path::from_bits(of.x), scales[0][1] = path::from_bits(of.y);
    scales[1][0] = path::from_bits(of.z), scales[1][1] = path::from_bits(of.w);
  }
};

// Adds a group; sum i is of output r + i / 2 * 8 and row 2 t + i % 2.
__device__ inline void add_group(const std::uint32_t (&a)[4], const float (&factors)[2][2],
                                 const Rows& x, int group, float (&sums)[4]) {
  int counts[4] = {kStart, kStart, kStart, kStart};
  const std::uint32_t b[2] = {x.codes[2 * group], x.codes[2 * group + 1]};
  lowp::multiply_add<lowp::Numbers::int8>(counts, a, b);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float count = path::from_bits(static_cast<std::uint32_t>(counts[i])) - 12582912.0f;
    sums[i] = fmaf(count, factors[i / 2][group] * x.scales[i % 2][group], sums[i]);
  }
}

// Few rows: a block has 16 outputs, each of its warps a slice of the inputs. The weights go by once, several bricks
// of a warp on their way at a time.
constexpr int kFewThreads = kSlices * kLanes, kMostFewRows = 32;
constexpr int kPartPitch = 20;  // lanes lie in different banks

template <Format format, int kTiles>
__global__ void __launch_bounds__(kFewThreads, kTiles == 1 ? 2 : 1)
    multiply_few(const __grid_constant__ Product p) {
  constexpr int kAhead = 2;
  __shared__ float parts[kSlices][kTiles * kTileRows][kPartPitch];
  const int slice = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const std::int64_t per = blocks_of_slice(p.blocks);
  const std::int64_t begin = min(slice * per, p.blocks), end = min(begin + per, p.blocks);
  const char* const weights = p.weights + blockIdx.x * p.blocks * brick_bytes(format);
  float sums[kTiles][4] = {};
  for (std::int64_t block = begin; block < end; block += kAhead) {
    Weights<format> ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i)
      if (block + i < end) ahead[i].load(weights + (block + i) * brick_bytes(format), lane);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (block + i >= end) break;
      std::uint32_t a[2][4];
      float factors[2][2];
      ahead[i].operands(0, a[0]);
      ahead[i].operands(1, a[1]);
      ahead[i].factors(factors);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        Rows x;
        x.load(p.rows + (tile * p.blocks + block + i) * kRowBrick, lane,
               tile * kTileRows + lane / 4 < p.count);
        add_group(a[0], factors, x, 0, sums[tile]);
        add_group(a[1], factors, x, 1, sums[tile]);
      }
    }
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      parts[slice][tile * kTileRows + lane % 4 * 2 + i % 2][lane / 4 + i / 2 * 8] = sums[tile][i];
  __syncthreads();
  const std::int64_t slices = tiles_of(p.blocks, per);
  for (int i = threadIdx.x; i < p.count * kTileOutputs; i += kFewThreads) {
    const int row = i / kTileOutputs, output = i % kTileOutputs;
    float sum = parts[0][row][output];
    for (int s = 1; s < slices; ++s) sum = sum + parts[s][row][output];
    const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kTileOutputs + output;
    if (at < p.outputs) p.put(row, at, sum);
  }
}

// Many rows: a block's tile in bricks, on their way into shared memory while those before are multiplied.
constexpr int kManyThreads = 256, kStages = 4;

// Bricks of 16 outputs and of 8 rows; four warps share the outputs, two the rows.
template <int outputs, int rows>
struct TileShape {
  static constexpr int kOutputBricks = outputs, kRowBricks = rows;
  static constexpr int kOutputs = outputs * kTileOutputs, kRows = rows * kTileRows;
  static constexpr int kDown = outputs / 4, kAcross = rows / 2;  // bricks of a warp
  static constexpr int kSumPitch = kOutputs + 4;
  static OARLOCK_MAP int stage_bytes(Format format) {
    return outputs * brick_bytes(format) + rows * kRowBrick;
  }
  static OARLOCK_MAP int shared_bytes(Format format) {
    const int stages = kStages * stage_bytes(format), sums = 4 * kRows * kSumPitch;
    return stages > sums ? stages : sums;
  }
};
using LargeTile = TileShape<8, 16>;
using SmallTile = TileShape<4, 8>;

// Brick `block` of each of `bricks` rows of bricks from `first` on; zeros behind `all`.
template <int bricks, int bytes>
__device__ inline void load_bricks(char* shared, const char* data, std::int64_t first,
                                   std::int64_t all, std::int64_t block, std::int64_t blocks) {
  constexpr int kPieces = bytes / 16;
  for (int i = threadIdx.x; i < bricks * kPieces; i += kManyThreads) {
    const std::int64_t tile = first + i / kPieces;
    const bool valid = tile < all;
    const char* const from =
        data + ((valid ? tile : 0) * blocks + block) * bytes + i % kPieces * 16;
    lowp::copy_async(shared + i * 16, from, valid);
  }
}

template <Format format, typename Tile>
__global__ void __launch_bounds__(kManyThreads, 1)
    multiply_many(const __grid_constant__ Product p) {
  constexpr int kStage = Tile::stage_bytes(format), kBytes = brick_bytes(format);
  const std::int64_t row_tiles = tiles_of(p.count, Tile::kRows);
  const lowp::TilePlace place =
      lowp::tile_of_block(blockIdx.x, row_tiles, tiles_of(p.outputs, Tile::kOutputs));
  const std::int64_t first_row = place.down * Tile::kRows;
  const std::int64_t first_output = place.across * Tile::kOutputs;
  const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const int down = warp % 4 * Tile::kDown, across = warp / 4 * Tile::kAcross;
  char* const shared = lowp::dynamic_shared();
  const auto load = [&](std::int64_t block) {
    if (block < p.blocks) {
      char* const stage = shared + block % kStages * kStage;
      load_bricks<Tile::kOutputBricks, kBytes>(stage, p.weights, first_output / kTileOutputs,
                                               tiles_of(p.outputs, kTileOutputs), block, p.blocks);
      load_bricks<Tile::kRowBricks, kRowBrick>(stage + Tile::kOutputBricks * kBytes, p.rows,
                                               first_row / kTileRows, tiles_of(p.count, kTileRows),
                                               block, p.blocks);
    }
    lowp::commit_copies();
  };
  float sums[Tile::kDown][Tile::kAcross][4] = {}, totals[Tile::kDown][Tile::kAcross][4];
  const std::int64_t per = blocks_of_slice(p.blocks);
  std::int64_t in_slice = 0;
  bool first = true;
  for (int block = 0; block < kStages - 1; ++block) load(block);
  for (std::int64_t block = 0; block < p.blocks; ++block) {
    lowp::wait_for_copies<kStages - 2>();
    __syncthreads();  // the bricks are here, and nobody reads those before them any more
    load(block + kStages - 1);
    const char* const weights = shared + block % kStages * kStage;
    const char* const rows = weights + Tile::kOutputBricks * kBytes;
    std::uint32_t a[Tile::kDown][2][4];
    float factors[Tile::kDown][2][2];
#pragma unroll
    for (int i = 0; i < Tile::kDown; ++i) {
      Weights<format> w;
      w.load(weights + (down + i) * kBytes, lane);
      w.operands(0, a[i][0]);
      w.operands(1, a[i][1]);
      w.factors(factors[i]);
    }
#pragma unroll
    for (int j = 0; j < Tile::kAcross; ++j) {
      Rows x;
      x.load(rows + (across + j) * kRowBrick, lane, true);
#pragma unroll
      for (int i = 0; i < Tile::kDown; ++i) {
        add_group(a[i][0], factors[i], x, 0, sums[i][j]);
        add_group(a[i][1], factors[i], x, 1, sums[i][j]);
      }
    }
    if (++in_slice < per && block + 1 < p.blocks) continue;
#pragma unroll
    for (int i = 0; i < Tile::kDown; ++i)
#pragma unroll
      for (int j = 0; j < Tile::kAcross; ++j)
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          totals[i][j][k] = first ? sums[i][j][k] : totals[i][j][k] + sums[i][j][k];
          sums[i][j][k] = 0;
        }
    in_slice = 0;
    first = false;
  }

  // Through shared memory, so that whole rows are written.
  lowp::wait_for_copies<0>();
  __syncthreads();
  float* const kept = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int i = 0; i < Tile::kDown; ++i)
#pragma unroll
    for (int j = 0; j < Tile::kAcross; ++j)
#pragma unroll
      for (int k = 0; k < 4; ++k)
        kept[((across + j) * kTileRows + lane % 4 * 2 + k % 2) * Tile::kSumPitch +
             (down + i) * kTileOutputs + lane / 4 + k / 2 * 8] = totals[i][j][k];
  __syncthreads();
  for (int i = threadIdx.x; i < Tile::kRows * Tile::kOutputs; i += kManyThreads) {
    const int r = i / Tile::kOutputs, o = i % Tile::kOutputs;
    if (first_row + r < p.count && first_output + o < p.outputs)
      p.put(first_row + r, first_output + o, kept[r * Tile::kSumPitch + o]);
  }
}

// A weight from the CPU's panels into bricks, a word for each thread: 8 and 128 are taken off the codes.
constexpr int kArrangeThreads = 256;

template <Format format>
__global__ void __launch_bounds__(kArrangeThreads)
    arrange(const char* panels, std::uint32_t* bricks, std::int64_t blocks, std::int64_t tiles) {
  constexpr int kWords = brick_bytes(format) / 4;
  const std::int64_t at = static_cast<std::int64_t>(blockIdx.x) * kArrangeThreads + threadIdx.x;
  const std::int64_t brick = at / kWords;
  if (brick >= tiles * blocks) return;
  const int word = static_cast<int>(at % kWords);
  const std::int64_t tile = brick / blocks, block = brick % blocks;
  const int first = static_cast<int>(tile % 2) * kTileOutputs;
  const char* const from = panels + (tile / 2 * blocks + block) * kPanelBlock<format>;
  const std::int64_t source = source_of_word(format, word, first);
  if (source >= 0) {
    const std::uint32_t codes = *reinterpret_cast<const std::uint32_t*>(from + source);
    bricks[at] = codes ^ (format == Format::int4 ? 0x88888888u : 0x80808080u);
    return;
  }
  const int output = output_of_scales(word - code_bytes(format) / 4, first);
  const auto* const scales = reinterpret_cast<const std::uint16_t*>(from);
  bricks[at] = scales[output] | static_cast<std::uint32_t>(scales[kWidth + output]) << 16;
}

}  // namespace oarlock::cuda::quant
