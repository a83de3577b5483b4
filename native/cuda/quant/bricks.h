// Where rows and weights lie on a GPU: in bricks, of which each lane of a warp reads its own part whole.
//
// A brick holds 64 inputs, two groups, of 16 outputs of a weight or of 8 rows; bricks of the same outputs or
// rows follow each other along the inputs. Lane 4 r + t has of row r (and r + 8) the inputs 8 t to 8 t + 7 of each
// group: what tensor cores take from it in one mma.sync, up to the order of the inputs, which is the same
// for both operands. A brick ends in its scales. Plain functions of numbers, so that they run anywhere.
#pragma once

#include <cstdint>

#include "lowp/layout.h"
#include "quant/layout.h"

namespace oarlock::cuda::quant {

using oarlock::quant::Format;
using oarlock::quant::kBlock;
using oarlock::quant::kGroup;
using oarlock::quant::kWidth;

constexpr int kLanes = 32;
constexpr int kTileOutputs = 16, kTileRows = 8;  // of a brick
constexpr int kLaneBytes = 16;
constexpr int kScaleBytes = 64;  // 16 outputs or 8 rows, two groups: float16 of weights, float32 of rows
constexpr int kRowCodes = kLanes * kLaneBytes, kRowBrick = kRowCodes + kScaleBytes;

// Bytes of the codes of a weight's brick: int8 has the two groups behind each other, 16 bytes for each lane; int4
// both in 16 bytes, as two words for outputs r and r + 8 of each group.
OARLOCK_MAP int code_bytes(Format format) { return format == Format::int4 ? kRowCodes : 2 * kRowCodes; }
OARLOCK_MAP int brick_bytes(Format format) { return code_bytes(format) + kScaleBytes; }

OARLOCK_MAP std::int64_t tiles_of(std::int64_t count, std::int64_t tile) {
  return (count + tile - 1) / tile;
}
OARLOCK_MAP std::int64_t blocks_of(std::int64_t inputs) { return tiles_of(inputs, kBlock); }
OARLOCK_MAP std::int64_t weight_bytes(Format format, std::int64_t inputs, std::int64_t outputs) {
  return tiles_of(outputs, kTileOutputs) * blocks_of(inputs) * brick_bytes(format);
}
OARLOCK_MAP std::int64_t rows_bytes(std::int64_t rows, std::int64_t inputs) {
  return tiles_of(rows, kTileRows) * blocks_of(inputs) * kRowBrick;
}

// Sums have one order for any number of rows: slices of the inputs one after the other, each from its beginning.
constexpr int kSlices = 16;
OARLOCK_MAP std::int64_t blocks_of_slice(std::int64_t blocks) { return tiles_of(blocks, kSlices); }

// Bytes of a block in the CPU's panels.
template <Format format>
constexpr std::int64_t kPanelBlock = oarlock::quant::block_bytes(format);

// Where word `word` of a weight's brick comes from in the CPU's panels: byte offset from the panel's block, for
// outputs `first` (0 or 16 of the panel) on. Words behind the codes are two scales of one output.
OARLOCK_MAP std::int64_t source_of_word(Format format, int word, int first) {
  const int codes = code_bytes(format) / 4;
  if (word >= codes) return -1;
  const int lane = word / 4 % kLanes, r = lane / 4, t = lane % 4;
  const int j = word % 4, output = first + r + j % 2 * 8;
  const std::int64_t begin = oarlock::quant::kScaleBytes;
  if (format == Format::int4)
    return begin + j / 2 * (kGroup * kWidth / 2) + (t * kWidth + output) * 4;
  return begin + word / (4 * kLanes) * (kGroup * kWidth) + ((2 * t + j / 2) * kWidth + output) * 4;
}

// The output, from the panel's `first` on, of scale word `word`, 0 to 15: of r and r + 8 by turns.
OARLOCK_MAP int output_of_scales(int word, int first) { return first + word / 2 + word % 2 * 8; }

}  // namespace oarlock::cuda::quant
