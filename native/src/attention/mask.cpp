#include "attention/mask.h"

#include <algorithm>
#include <limits>

namespace oarlock::attention {
namespace {

// Rows from here on do not exist: an interval that reaches the last row reaches all of them.
constexpr std::int32_t kForever = std::numeric_limits<std::int32_t>::max();

struct Interval {
  std::int32_t begin = 0, end = 0;
};

constexpr int kNumbers = 2 * kIntervals * kTileKeys;  // of a tile

}  // namespace

Mask::Mask(const Shape& shape, const oarlock_tensors* bounds, bool causal)
    : tiles_((shape.keys + kTileKeys - 1) / kTileKeys) {
  const std::int32_t* given = nullptr;
  std::int64_t width = 0;
  if (bounds != nullptr) {
    const oarlock_tensor& item = bounds->items[0];
    given = static_cast<const std::int32_t*>(item.data);
    batches_ = item.shape[0], heads_ = item.shape[1], width = item.shape[3];
  }
  const std::int64_t places = batches_ * heads_ * tiles_;
  numbers_.resize(places * kNumbers);
  extremes_.resize(places * kIntervals);
  const auto rows = static_cast<std::int32_t>(shape.rows);
  for (std::int64_t at = 0; at < places; ++at) {
    std::int32_t* const numbers = numbers_.data() + at * kNumbers;
    for (std::int64_t i = 0; i < kTileKeys; ++i) {
      const std::int64_t key = at % tiles_ * kTileKeys + i;
      Interval found[kIntervals];
      if (key >= shape.keys) {
        found[0] = {0, kForever};
      } else {
        const std::int32_t* const b =
            given == nullptr ? nullptr : given + (at / tiles_ * shape.keys + key) * width;
        if (causal) {
          const std::int64_t diagonal = key - (shape.keys - shape.rows);
          found[1] = {0, static_cast<std::int32_t>(std::max<std::int64_t>(diagonal, 0))};
          if (width == 1) found[0] = {b[0], rows};
          if (width == 2) found[0] = {b[0], b[1]};
        } else if (width == 2) {
          found[0] = {b[0], rows}, found[1] = {0, b[1]};
        } else if (width == 4) {
          found[0] = {b[0], b[1]}, found[1] = {b[2], b[3]};
        }
      }
      for (int kind = 0; kind < kIntervals; ++kind) {
        Interval& one = found[kind];
        if (one.begin >= one.end) one = {};
        if (one.end >= rows) one.end = kForever;
        numbers[2 * kind * kTileKeys + i] = one.begin;
        numbers[(2 * kind + 1) * kTileKeys + i] = one.end;
      }
    }
    for (int kind = 0; kind < kIntervals; ++kind) {
      const std::int32_t* const begin = numbers + 2 * kind * kTileKeys;
      const auto begins = std::minmax_element(begin, begin + kTileKeys);
      const auto ends = std::minmax_element(begin + kTileKeys, begin + 2 * kTileKeys);
      extremes_[at * kIntervals + kind] = {*begins.first, *begins.second, *ends.first,
                                           *ends.second};
    }
  }
}

Sight Mask::sight(std::int64_t batch, std::int64_t kv_head, std::int64_t tile, std::int64_t first,
                  std::int64_t last) const {
  const Extremes* const all = extremes_.data() + place(batch, kv_head, tile) * kIntervals;
  bool touched = false;
  for (int kind = 0; kind < kIntervals; ++kind) {
    const Extremes& one = all[kind];
    if (one.most_begin <= first && one.least_end >= last) return Sight::none;
    touched |= one.least_begin < last && one.most_end > first;
  }
  return touched ? Sight::some : Sight::every;
}

Intervals Mask::intervals(std::int64_t batch, std::int64_t kv_head, std::int64_t tile) const {
  const std::int32_t* const numbers = numbers_.data() + place(batch, kv_head, tile) * kNumbers;
  Intervals found;
  for (int kind = 0; kind < kIntervals; ++kind) {
    found.begin[kind] = numbers + 2 * kind * kTileKeys;
    found.end[kind] = numbers + (2 * kind + 1) * kTileKeys;
  }
  return found;
}

}  // namespace oarlock::attention
