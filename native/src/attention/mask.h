// The mask of a call: for each key the rows that do not see it, and what a tile of it needs.
#pragma once

#include <cstdint>
#include <vector>

#include "attention/arguments.h"
#include "attention/kernels.h"

namespace oarlock::attention {

enum class Sight { none, some, every };

class Mask {
 public:
  // `bounds` as check_bounds found them; null for none.
  Mask(const Shape& shape, const oarlock_tensors* bounds, bool causal);

  // What rows [first, last) see of a tile of keys.
  Sight sight(std::int64_t batch, std::int64_t kv_head, std::int64_t tile, std::int64_t first,
              std::int64_t last) const;

  // The keys of a tile, kTileKeys of each number; those that do not exist are seen by no row.
  Intervals intervals(std::int64_t batch, std::int64_t kv_head, std::int64_t tile) const;

 private:
  // Of one kind of interval in one tile.
  struct Extremes {
    std::int32_t least_begin, most_begin, least_end, most_end;
  };

  std::int64_t place(std::int64_t batch, std::int64_t kv_head, std::int64_t tile) const {
    return (batch % batches_ * heads_ + kv_head % heads_) * tiles_ + tile;
  }

  std::int64_t batches_ = 1, heads_ = 1, tiles_;
  std::vector<std::int32_t> numbers_;  // [place, interval, begin or end, key of the tile]
  std::vector<Extremes> extremes_;     // [place, interval]
};

}  // namespace oarlock::attention
