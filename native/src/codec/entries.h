// Entries of a code: positions that rise, each with a value.
#pragma once

#include <cstdint>

namespace oarlock::codec {

// The first of `count` positions that does not rise, or is not below `size`; `count` if there is none.
template <typename Index>
std::int64_t first_wrong(const Index* indices, std::int64_t count, std::int64_t size) {
  std::int64_t last = -1;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto index = static_cast<std::int64_t>(indices[i]);
    if (index <= last || index >= size) return i;
    last = index;
  }
  return count;
}

template <typename Index>
void add_entries(const Index* indices, const float* values, std::int64_t count, float weight,
                 float* out) {
  for (std::int64_t i = 0; i < count; ++i)
    out[indices[i]] = out[indices[i]] + weight * values[i];
}

}  // namespace oarlock::codec
