// The mask of a call as kernels on tensor cores read it: of each key the rows that do not see it, of each group of keys
// what tells whether a tile of rows sees none, some or all of them; and walks over the tiles that are seen.
#pragma once

#include <type_traits>

#include "attention/operands.cuh"

namespace oarlock::cuda::attention {

constexpr int kLanes = 32;
constexpr int kGroup = 32;      // keys that are summed up together
constexpr int kMostKeys = 128;  // of a tile; groups are kept for whole tiles of so many
constexpr std::int32_t kForever = 0x7fffffff;  // an end at the last row or behind it

// Of a key: rows from begin[i] on, count[i] of them, do not see it.
struct alignas(16) Hidden {
  std::uint32_t begin[2], count[2];

  __device__ bool hides(std::uint32_t row) const {
    return row - begin[0] < count[0] || row - begin[1] < count[1];
  }
};

// Of one of these two intervals, over the keys of a group.
struct alignas(16) Extremes {
  std::int32_t least_begin, most_begin, least_end, most_end;
};

struct Mask {
  Hidden* keys;        // [batches, heads, groups * kGroup]
  Extremes* extremes;  // [batches, heads, groups, 2]
  std::int64_t batches, heads, groups;
  bool bounded;  // not causal alone, nor no mask at all

  __host__ __device__ std::int64_t places() const { return batches * heads * groups; }
  // Index of a group of a head's keys.
  __device__ std::int64_t group(std::int64_t batch, std::int64_t kv_head, std::int64_t key) const {
    return ((batches == 1 ? 0 : batch) * heads + (heads == 1 ? 0 : kv_head)) * groups + key / kGroup;
  }
};

constexpr int kMaskWarps = 4;

// Reads the bounds; a warp for each group.
__global__ void __launch_bounds__(kMaskWarps * kLanes)
    read_mask(const __grid_constant__ Bounds given, const __grid_constant__ Mask mask) {
  const std::int64_t place = static_cast<std::int64_t>(blockIdx.x) * kMaskWarps + threadIdx.x / kLanes;
  if (place >= mask.places()) return;
  const int lane = threadIdx.x % kLanes;
  const std::int64_t head = place / mask.groups, key = place % mask.groups * kGroup + lane;
  std::int32_t begin[2] = {}, end[2] = {};
  if (key >= given.keys) {
    end[0] = end[1] = kForever;  // both, so that such a key does not keep its group from being skipped
  } else {
    const std::int32_t* const b =
        given.numbers == nullptr ? nullptr : given.numbers + (head * given.keys + key) * given.width;
    const auto rows = static_cast<std::int32_t>(given.rows);
    if (given.causal) {
      end[1] = static_cast<std::int32_t>(max(key - (given.keys - given.rows), std::int64_t{0}));
      if (b != nullptr) begin[0] = b[0], end[0] = given.width == 2 ? b[1] : rows;
    } else if (b != nullptr) {
      begin[0] = b[0], end[0] = given.width == 2 ? rows : b[1];
      begin[1] = given.width == 2 ? 0 : b[2], end[1] = given.width == 2 ? b[1] : b[3];
    }
    for (int i = 0; i < 2; ++i) {
      if (begin[i] >= end[i]) begin[i] = end[i] = 0;
      if (end[i] >= rows) end[i] = kForever;
    }
  }
  Hidden hidden;
  for (int i = 0; i < 2; ++i) {
    hidden.begin[i] = static_cast<std::uint32_t>(begin[i]);
    hidden.count[i] = static_cast<std::uint32_t>(end[i] - begin[i]);
    Extremes all{begin[i], begin[i], end[i], end[i]};
    for (int width = 1; width < kLanes; width *= 2) {
      all.least_begin = min(all.least_begin, __shfl_xor_sync(kWholeWarp, all.least_begin, width));
      all.most_begin = max(all.most_begin, __shfl_xor_sync(kWholeWarp, all.most_begin, width));
      all.least_end = min(all.least_end, __shfl_xor_sync(kWholeWarp, all.least_end, width));
      all.most_end = max(all.most_end, __shfl_xor_sync(kWholeWarp, all.most_end, width));
    }
    if (lane == 0) mask.extremes[place * 2 + i] = all;
  }
  mask.keys[place * kGroup + lane] = hidden;
}

enum class Sight { none, some, every };

// What rows [first, last) see of `count` groups.
__device__ inline Sight look(const Extremes* groups, int count, std::int32_t first, std::int32_t last) {
  bool none = true, every = true;
  for (int group = 0; group < count; ++group) {
    bool hidden = false;
    for (int i = 0; i < 2; ++i) {
      const Extremes one = groups[group * 2 + i];
      hidden |= one.most_begin <= first && one.least_end >= last;
      every &= one.least_begin >= last || one.most_end <= first;
    }
    none &= hidden;
  }
  return none || first >= last ? Sight::none : every ? Sight::every : Sight::some;
}

// Calls body(whether some is hidden), unless all is: what sees all gets code without a branch.
template <typename Body>
__device__ void with_sight(Sight sight, const Body& body) {
  if (sight == Sight::every)
    body(std::false_type{});
  else if (sight == Sight::some)
    body(std::true_type{});
}

// The tiles of which something is seen, in order; `see(tile)` tells what. The lanes of a warp look at 32 at once, and
// all warps of a block find the same.
template <typename See>
class Walk {
 public:
  struct Step {
    std::int32_t tile;  // negative: there is no other
    bool every;
  };

  __device__ Walk(std::int64_t tiles, const See& see) : tiles_(static_cast<std::int32_t>(tiles)), see_(see) {}

  __device__ void restart() { next_ = 0; }

  __device__ Step next() {
    while (seen_ == 0) {
      if (next_ >= tiles_) return {-1, false};
      const std::int32_t tile = next_ + static_cast<std::int32_t>(threadIdx.x % kLanes);
      const Sight sight = tile < tiles_ ? see_(tile) : Sight::none;
      seen_ = __ballot_sync(kWholeWarp, sight != Sight::none);
      every_ = __ballot_sync(kWholeWarp, sight == Sight::every);
      next_ += kLanes;
    }
    const int bit = __ffs(seen_) - 1;
    seen_ &= seen_ - 1;
    return {next_ - kLanes + bit, (every_ >> bit & 1u) != 0};
  }

 private:
  std::int32_t tiles_, next_ = 0;
  unsigned seen_ = 0, every_ = 0;
  See see_;
};

}  // namespace oarlock::cuda::attention
