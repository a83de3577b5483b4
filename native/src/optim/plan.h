// Work shared out in chunks over all tensors of a call, so that many small ones and one large one
// keep every thread equally busy.
#pragma once

#include <algorithm>
#include <vector>

#include "core/abi.h"

namespace oarlock::optim {

// Divides 2^32, so that the low half of element indices does not wrap within a chunk.
constexpr std::int64_t kChunk = std::int64_t{1} << 15;

struct Chunk {
  std::int64_t tensor, begin, count;
};

class Plan {
 public:
  explicit Plan(const oarlock_tensors& list) : list_(list), first_(list.count + 1) {
    for (std::int64_t i = 0; i < list.count; ++i) {
      first_[i + 1] = first_[i] + (list.items[i].count + kChunk - 1) / kChunk;
      elements_ += list.items[i].count;
    }
  }

  std::int64_t size() const { return first_.back(); }

  // Fewer elements than this are not worth waking a thread for.
  std::int32_t threads(std::int32_t wanted) const { return elements_ < kChunk ? 1 : wanted; }

  Chunk operator[](std::int64_t chunk) const {
    const auto after = std::upper_bound(first_.begin(), first_.end(), chunk);
    const std::int64_t tensor = after - first_.begin() - 1;
    const std::int64_t begin = (chunk - first_[tensor]) * kChunk;
    return {tensor, begin, std::min(kChunk, list_.items[tensor].count - begin)};
  }

  // Chunks of one tensor: [first(tensor), first(tensor + 1)).
  std::int64_t first(std::int64_t tensor) const { return first_[tensor]; }

 private:
  const oarlock_tensors& list_;
  std::vector<std::int64_t> first_;
  std::int64_t elements_ = 0;
};

}  // namespace oarlock::optim
