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
  ints hidden = all_ints(-1), touched = ints{};
  for (int c = 0; c < kPanel; c += kLanes) {
    ints covered = ints{};
    for (int i = 0; i < kIntervals; ++i) {
      const ints begin = load_ints(mask.begin[i] + key + c), end = load_ints(mask.end[i] + key + c);
      covered |= (begin <= first) & (end >= last);
      touched |= (begin < last) & (end > first);
    }
    hidden &= covered;
  }
  bool none = true, every = true;
  for (int lane = 0; lane < kLanes; ++lane) none &= hidden[lane] != 0, every &= touched[lane] == 0;
  return none ? Sight::none : every ? Sight::every : Sight::some;
}

// Puts `masked` where the row does not see the key.
inline void hide(float* scores, int64_t stride, const Intervals& mask, int key, int32_t first_row,
                 float masked) {
  for (int c = 0; c < kPanel; c += kLanes) {
    ints begin[kIntervals], end[kIntervals];
    for (int i = 0; i < kIntervals; ++i) {
      begin[i] = load_ints(mask.begin[i] + key + c);
      end[i] = load_ints(mask.end[i] + key + c);
    }
    for (int r = 0; r < kBlockRows; ++r) {
      const ints row = all_ints(first_row + r);
      ints hidden = ints{};
      for (int i = 0; i < kIntervals; ++i) hidden |= (row >= begin[i]) & (row < end[i]);
      float* const here = scores + r * stride + c;
      store_floats(here, hidden ? all(masked) : load_floats(here));
    }
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
