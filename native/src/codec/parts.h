// Work shared out in parts of a tensor that begin at multiples of a unit.
#pragma once

#include <algorithm>
#include <cstdint>

#include "codec/arguments.h"
#include "core/parallel.h"

namespace oarlock::codec {

constexpr std::int64_t kPart = std::int64_t{1} << 15;  // elements, about
// ... where several passes go over each part, which stays in the nearest cache.
constexpr std::int64_t kSmallPart = std::int64_t{1} << 12;

// Parts of `units` that are `unit` elements each; their sizes depend on nothing else.
struct Parts {
  Parts(std::int64_t units, std::int64_t unit, std::int64_t part = kPart)
      : units(units), each(std::max<std::int64_t>(1, part / std::max<std::int64_t>(unit, 1))) {}

  std::int64_t size() const { return divided_up(units, each); }
  std::int64_t begin(std::int64_t part) const { return part * each; }
  std::int64_t end(std::int64_t part) const { return std::min(units, begin(part) + each); }

  std::int64_t units, each;
};

// Calls body(part, begin, end) for every part; one alone is not worth waking a thread for.
template <typename Body>
void for_parts(const Parts& parts, std::int32_t threads, const Body& body) {
  parallel_for(parts.size(), threads,
               [&](std::int64_t part) { body(part, parts.begin(part), parts.end(part)); });
}

}  // namespace oarlock::codec
