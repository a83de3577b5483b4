// Random bits of an element of a block under a key: of both, and of nothing else. Mirrored in
// reference/codec.py.
#pragma once

#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

struct BlockKey {
  uint32_t low, high;
};

// splitmix64, as `mix` of core/random.h, which the linker would share between paths.
OARLOCK_ALWAYS_INLINE BlockKey block_key(uint64_t key, int64_t block) {
  uint64_t x = (key ^ uint64_t(block)) + 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  x = x ^ (x >> 31);
  return {uint32_t(x), uint32_t(x >> 32)};
}

// In [0, 1), multiples of 2^-24.
OARLOCK_ALWAYS_INLINE floats uniform(words index, BlockKey key) {
  words h = index * 0x9e3779b1u + key.low;
  h = (h ^ (h >> 16)) * 0x7feb352du;
  h = (h ^ (h >> 15)) + key.high;
  h = h * 0x846ca68bu;
  h = h ^ (h >> 16);
  return __builtin_convertvector((ints)(h >> 8), floats) * 0x1p-24f;
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
