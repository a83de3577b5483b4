// Keys of stochastic rounding: of the seed, the operand and the place in memory, of nothing else.
#pragma once

#include <cstdint>

#include "lowp/kernels.h"

namespace oarlock::lowp {

// splitmix64, as the optimisers use it.
inline std::uint64_t mix(std::uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

inline Random random_of_row(std::uint64_t key, std::int64_t row, std::int64_t column) {
  const std::uint64_t mixed = mix(key ^ static_cast<std::uint64_t>(row));
  return {static_cast<std::uint32_t>(mixed), static_cast<std::uint32_t>(mixed >> 32),
          static_cast<std::uint32_t>(column)};
}

}  // namespace oarlock::lowp
