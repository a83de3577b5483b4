// Which of 64 magnitudes are large, as the bits of a word.
#pragma once

#include "codec/bytes.h"
#include "codec/kernels.h"

namespace oarlock::OARLOCK_PATH {
namespace {

constexpr int kGroup = 64;

OARLOCK_ALWAYS_INLINE int32_t magnitude(float x) { return int32_t(to_bits(x) & 0x7fffffffu); }

// All NaN are alike.
OARLOCK_ALWAYS_INLINE int32_t alike(int32_t magnitude) {
  return magnitude < codec::kNan ? magnitude : codec::kNan;
}
OARLOCK_ALWAYS_INLINE ints alike(ints magnitudes) {
  return magnitudes < codec::kNan ? magnitudes : all(codec::kNan);
}

// Bit i is whether |x[i]| >= least.
OARLOCK_ALWAYS_INLINE uint64_t at_least(const float* x, int32_t least) {
  uint64_t bits = 0;
#if defined(OARLOCK_PATH_avx512)
  const __m512i bound = _mm512_set1_epi32(least);
  for (int i = 0; i < kGroup; i += kLanes)
    bits |= uint64_t(_mm512_cmpge_epi32_mask((__m512i)magnitudes(load_floats(x + i)), bound)) << i;
#elif defined(OARLOCK_PATH_avx2)
  for (int i = 0; i < kGroup; i += kLanes) {
    const ints found = magnitudes(load_floats(x + i)) >= least;
    bits |= uint64_t(uint32_t(_mm256_movemask_ps((__m256)found))) << i;
  }
#else
  ints most{};
  for (int i = 0; i < kGroup; i += kLanes) most = larger(most, magnitudes(load_floats(x + i)));
  if (largest(most) < least) return 0;  // mostly so
  for (int i = 0; i < kGroup; ++i) bits |= uint64_t(magnitude(x[i]) >= least) << i;
#endif
  return bits;
}

// Calls visit(i) for every i in [0, n), rising, with |x[i]| >= least.
template <typename Visit>
OARLOCK_ALWAYS_INLINE void for_large(const float* x, int64_t n, int32_t least, const Visit& visit) {
  int64_t i = 0;
  for (; i + kGroup <= n; i += kGroup)
    for (uint64_t bits = at_least(x + i, least); bits != 0; bits &= bits - 1)
      visit(i + __builtin_ctzll(bits));
  for (; i < n; ++i)
    if (magnitude(x[i]) >= least) visit(i);
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
