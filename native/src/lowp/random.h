// Keys of stochastic rounding: of the seed, the operand and the place in memory, of nothing else.
#pragma once

#include <cstdint>

#include "core/random.h"
#include "lowp/kernels.h"

namespace oarlock::lowp {

OARLOCK_INLINE Random random_of_row(std::uint64_t key, std::int64_t row, std::int64_t column) {
  const std::uint64_t mixed = mix(key ^ static_cast<std::uint64_t>(row));
  return {static_cast<std::uint32_t>(mixed), static_cast<std::uint32_t>(mixed >> 32),
          static_cast<std::uint32_t>(column)};
}

}  // namespace oarlock::lowp
