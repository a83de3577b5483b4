// Storing parameters: float32 as it is, bfloat16 rounded to nearest or at random.
#pragma once

#include "core/kernel.h"
#include "optim/kernels.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using optim::Rounding;

// 16 random bits of element `index` under the key. Mirrored in reference/optim.py.
OARLOCK_INLINE uint32_t random16(uint32_t index, uint32_t key0, uint32_t key1) {
  uint32_t h = index * 0x9e3779b1u + key0;
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) + key1;
  h = (h ^ (h >> 15)) * 0xc2b2ae35u;
  return h >> 16;
}

struct StoreExactly {
  OARLOCK_INLINE explicit StoreExactly(const Rounding&) {}
  OARLOCK_INLINE void operator()(float* p, int64_t i, float x) const { p[i] = x; }
};

struct StoreNearest {
  OARLOCK_INLINE explicit StoreNearest(const Rounding&) {}
  OARLOCK_INLINE void operator()(bfloat16* p, int64_t i, float x) const { p[i] = bfloat16(round_nearest(x)); }
};

struct StoreRandomly {
  uint32_t first, key0, key1;
  OARLOCK_INLINE explicit StoreRandomly(const Rounding& r) : first(r.first), key0(r.key0), key1(r.key1) {}
  OARLOCK_INLINE void operator()(bfloat16* p, int64_t i, float x) const {
    p[i] = bfloat16(round_randomly(x, random16(first + uint32_t(i), key0, key1)));
  }
};

// Calls loop(store) with the store for this parameter type and rounding.
template <typename Loop>
inline void with_store(float*, const Rounding& r, const Loop& loop) {
  loop(StoreExactly(r));
}

template <typename Loop>
inline void with_store(bfloat16*, const Rounding& r, const Loop& loop) {
  if (r.stochastic)
    loop(StoreRandomly(r));
  else
    loop(StoreNearest(r));
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
