// The shape of a tile of sums that fits into the registers, and products of int16.
#pragma once

#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

#if defined(OARLOCK_PATH_avx512)
constexpr int kTileRows = 14, kColumnVectors = 2;
#elif defined(OARLOCK_PATH_avx2)
constexpr int kTileRows = 6, kColumnVectors = 2;
#elif defined(OARLOCK_PATH_neon)
constexpr int kTileRows = 6, kColumnVectors = 4;
#else
constexpr int kTileRows = 4, kColumnVectors = 2;
#endif
constexpr int kPanelWidth = kLanes * kColumnVectors;

// c + the sum of the two products of int16 in each lane.
inline words multiply_add_words(words c, words a, words b) {
#if defined(OARLOCK_PATH_avx512)
  return c + (words)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(OARLOCK_PATH_avx2)
  return c + (words)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  const ints x = (ints)a, y = (ints)b;
  const ints low = ((ints)((words)x << 16) >> 16) * ((ints)((words)y << 16) >> 16);
  return c + (words)low + (words)((x >> 16) * (y >> 16));
#endif
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
