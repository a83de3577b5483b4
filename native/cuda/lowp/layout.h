// Where elements are: in memory, in tiles in shared memory, and in the registers of a warp.
//
// Plain functions of numbers, so that they run on any machine. Both operands of a product have the
// reduction contiguous. A step of it is 32 bytes: 32 elements of a byte, or 16 of two. In bytes, all
// of mma.sync's fragments look alike.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define OARLOCK_MAP __host__ __device__ constexpr
#else
#define OARLOCK_MAP constexpr
#endif

namespace oarlock::cuda::lowp {

// How numbers are multiplied: by tensor cores, except `floats`.
enum class Numbers { int8, int16, bf16, fp16, e4m3_e4m3, e4m3_e5m2, e5m2_e4m3, floats };

constexpr int kLanes = 32;        // of a warp
constexpr int kVectorBytes = 16;  // what one instruction copies or loads
constexpr int kStepBytes = 32;    // of the reduction in one mma.sync
constexpr int kTileBytes = 128;   // of the reduction in a tile
constexpr int kSteps = kTileBytes / kStepBytes;
constexpr int kVectors = kTileBytes / kVectorBytes;
constexpr int kStages = 3;        // tiles on their way
constexpr int kFragmentRows = 16, kFragmentColumns = 8;  // sums of one mma.sync

// A block's tile of sums, and each of its 8 warps' share.
template <int rows, int columns, int warps_down>
struct TileShape {
  static constexpr int kRows = rows, kColumns = columns, kWarps = 8, kThreads = kWarps * kLanes;
  static constexpr int kWarpRows = rows / warps_down;
  static constexpr int kWarpColumns = columns / (kWarps / warps_down);
  static constexpr int kDown = kWarpRows / kFragmentRows;           // fragments of a warp
  static constexpr int kAcross = kWarpColumns / kFragmentColumns;
  static constexpr int kStageBytes = (rows + columns) * kTileBytes;
  static constexpr int kSharedBytes = kStages * kStageBytes;
  static constexpr int kSumPitch = columns + 8;  // lanes of a fragment lie in different banks
  static OARLOCK_MAP int first_row(int warp) { return warp % warps_down * kWarpRows; }
  static OARLOCK_MAP int first_column(int warp) { return warp / warps_down * kWarpColumns; }
  static_assert(rows * kSumPitch * 4 <= kSharedBytes, "the sums take the place of the operands");
  static_assert(kAcross % 2 == 0, "ldmatrix loads two fragments of columns");
};
using LargeTile = TileShape<128, 128, 2>;
using SmallTile = TileShape<64, 64, 2>;

// Bytes from one row of a packed operand to the next: whole tiles, so that reads need no end.
OARLOCK_MAP std::int64_t packed_pitch(std::int64_t bytes) {
  return (bytes + kTileBytes - 1) / kTileBytes * kTileBytes;
}

// Offset of a vector in a tile of rows of kTileBytes: eight rows of one vector, or eight vectors of
// one row, lie in different banks.
OARLOCK_MAP int swizzled(int row, int vector) {
  return row * kTileBytes + ((vector ^ (row & 7)) * kVectorBytes);
}

// What lane `lane` names to ldmatrix.x4, whose matrices are 8 rows of a vector. For 16 rows of a:
// matrices 0, 1 are the upper and lower rows of a step's first vector, 2 and 3 of its second.
OARLOCK_MAP int row_of_a(int lane) { return lane % 16; }
OARLOCK_MAP int vector_of_a(int lane) { return lane / 16; }
// For 16 columns of b: 0, 1 are both vectors of the first eight columns, 2 and 3 of the others.
OARLOCK_MAP int column_of_b(int lane) { return lane % 8 + lane / 16 * 8; }
OARLOCK_MAP int vector_of_b(int lane) { return lane / 8 % 2; }

// The place of sum i, 0 to 3, of a lane in a fragment.
OARLOCK_MAP int row_of_sum(int lane, int i) { return lane / 4 + i / 2 * 8; }
OARLOCK_MAP int column_of_sum(int lane, int i) { return lane % 4 * 2 + i % 2; }

// An int16 is 256 times a high and a low signed byte. 32 low bytes, then the 32 high ones.
OARLOCK_MAP std::int64_t place_of_low(std::int64_t element) {
  return element / 32 * 64 + element % 32;
}
OARLOCK_MAP std::int64_t place_of_high(std::int64_t element) { return place_of_low(element) + 32; }
OARLOCK_MAP int low_digit(int x) { return ((x & 0xff) ^ 0x80) - 0x80; }
OARLOCK_MAP int high_digit(int x) { return (x - low_digit(x)) / 256; }

// The tile of a block: up to 8 tiles of rows pass over the same columns, which stay in the cache.
struct TilePlace {
  std::int64_t down, across;
};
OARLOCK_MAP TilePlace tile_of_block(std::int64_t block, std::int64_t down, std::int64_t across) {
  const std::int64_t group = block / (8 * across) * 8;
  const std::int64_t height = down - group < 8 ? down - group : 8;
  const std::int64_t place = block - group * across;
  return {group + place % height, place / height};
}

// Products with few rows: elements along the reduction whose sum is kept on its own.
constexpr int kMostOfUnit = 256, kMostFewRows = 8;
OARLOCK_MAP std::int64_t unit_of(std::int64_t interval, std::int64_t elements) {
  if (interval >= elements) return kMostOfUnit;
  std::int64_t unit = kMostOfUnit;  // intervals are multiples of 32
  while (interval % unit != 0) unit /= 2;
  return unit;
}

}  // namespace oarlock::cuda::lowp
