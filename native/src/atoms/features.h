// Features of one atom in registers: components at as many channels as a register has lanes.
#pragma once

#include "atoms/lanes.h"
#include "atoms/spherical.h"

namespace oarlock::OARLOCK_PATH {
namespace {

// features: for each degree l [N, 2l + 1, channels].
template <int L, typename T>
OARLOCK_ALWAYS_INLINE void load_features(const T* const* features, int64_t atom, int64_t channels,
                                         int64_t channel, Lanes<T>* x) {
#pragma GCC unroll 4
  for (int l = 0; l <= L; ++l) {
    const T* const from = features[l] + atom * (2 * l + 1) * channels + channel;
#pragma GCC unroll 9
    for (int m = 0; m <= 2 * l; ++m) x[l * l + m] = load_lanes(from + m * channels);
  }
}

template <int L, typename T>
OARLOCK_ALWAYS_INLINE void store_features(T* const* features, int64_t atom, int64_t channels,
                                          int64_t channel, const Lanes<T>* x) {
#pragma GCC unroll 4
  for (int l = 0; l <= L; ++l) {
    T* const to = features[l] + atom * (2 * l + 1) * channels + channel;
#pragma GCC unroll 9
    for (int m = 0; m <= 2 * l; ++m) store_as(to + m * channels, x[l * l + m]);
  }
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
