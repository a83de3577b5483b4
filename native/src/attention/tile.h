// The state of the blocks of one tile under the mask, and masked scores.
#pragma once

#include "attention/kernels.h"
#include "attention/product.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using namespace oarlock::attention;

constexpr int kGroups = kTileRows / kBlockRows;  // of rows
constexpr int kPanels = kTileKeys / kPanel;      // of keys
static_assert(kGroups * kBlockRows == kTileRows && kPanels * kPanel == kTileKeys);
static_assert(kTileKeys % kBlockRows == 0 && kPad % kLanes == 0 && kPad >= kBlockRows);

constexpr float kMinusInfinity = -__builtin_inff();

enum class Sight : uint8_t { none, some, every };

// What rows [first, last) see of the kPanel keys from `key` on.
inline Sight sight_of(const Intervals& mask, int key, int32_t first, int32_t last) {
  ints open = ints{}, touched = ints{};
  for (int c = 0; c < kPanel; c += kLanes) {
    ints covered = ints{};
    for (int i = 0; i < kIntervals; ++i) {
      const ints begin = load_ints(mask.begin[i] + key + c), end = load_ints(mask.end[i] + key + c);
      covered |= (begin <= first) & (end >= last);
      touched |= (begin < last) & (end > first);
    }
    open |= ~covered;
  }
  return !any(open) ? Sight::none : any(touched) ? Sight::some : Sight::every;
}

// Makes scores minus infinity where the row does not see the key.
OARLOCK_ALWAYS_INLINE void hide(Block<kBlockRegisters>& block, const Intervals& mask, int key,
                                int32_t first_row) {
#pragma GCC unroll 4
  for (int c = 0; c < kBlockRegisters; ++c) {
    // Row r is in [begin, end) if r - begin < end - begin without a sign.
    words begin[kIntervals], size[kIntervals];
    for (int i = 0; i < kIntervals; ++i) {
      begin[i] = words(load_ints(mask.begin[i] + key + c * kLanes)) - uint32_t(first_row);
      size[i] = words(load_ints(mask.end[i] + key + c * kLanes)) - uint32_t(first_row) - begin[i];
    }
#pragma GCC unroll 16
    for (int r = 0; r < kBlockRows; ++r)
      block.sums[r][c] = replaced(block.sums[r][c], kMinusInfinity, uint32_t(r) - begin[0], size[0],
                                  uint32_t(r) - begin[1], size[1]);
  }
}

// A range of keys or rows; empty while begin >= end.
struct Range {
  int begin = kTileKeys + kTileRows, end = 0;
  OARLOCK_ALWAYS_INLINE void include(int from, int to) {
    begin = from < begin ? from : begin;
    end = to > end ? to : end;
  }
  OARLOCK_ALWAYS_INLINE int size() const { return end > begin ? end - begin : 0; }
};

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
