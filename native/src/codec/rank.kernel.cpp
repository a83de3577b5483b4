// The k-th largest magnitude of a chunk, and counts from which that of a tensor is found.
//
// It is found bit by bit, the highest first, by counting how many magnitudes reach a number. For few of many
// this is done for candidates only: the k-th largest of the maxima of at least k groups is a bound that at
// least k magnitudes reach, and not many more do where groups are several times as many.

#include "codec/magnitudes.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using codec::kLargestChunk;
using codec::Rank;

constexpr int kAccumulators = 8;                     // registers of maxima
constexpr int kMaxima = kAccumulators * kLanes;      // groups of a segment
constexpr int64_t kGroupsPerEntry = 4, kFew = 4096;  // groups for each of k; k at most
constexpr int64_t kCandidates = 2 * kFew;
constexpr int kCoarse = 18;                          // the bound has only the bits from here on

// Magnitudes in memory: those of a tensor, or numbers. Beyond the last one lie zeros.
struct Tensor {
  const float* x;
  int64_t n;
  OARLOCK_ALWAYS_INLINE ints at(int64_t i) const { return alike(magnitudes(load_floats(x + i))); }
  OARLOCK_ALWAYS_INLINE ints rest(int64_t i) const {
    return alike(magnitudes(load_part(x + i, n - i)));
  }
};
struct Numbers {
  const int32_t* x;
  int64_t n;
  OARLOCK_ALWAYS_INLINE ints at(int64_t i) const { return load_as<ints>(x + i); }
  OARLOCK_ALWAYS_INLINE ints rest(int64_t i) const {
    return (ints)load_part((const float*)(x + i), n - i);
  }
};

// Calls visit(register) for all of them.
template <typename Source, typename Visit>
OARLOCK_ALWAYS_INLINE void for_registers(const Source& source, const Visit& visit) {
  int64_t i = 0;
  for (; i + kLanes <= source.n; i += kLanes) visit(source.at(i));
  if (i < source.n) visit(source.rest(i));
}

// For least > 0, so that zeros do not count.
template <typename Source>
OARLOCK_ALWAYS_INLINE int64_t count_at_least(const Source& source, int32_t least) {
  ints counts{};
  for_registers(source, [&](ints here) { counts -= (ints)(here >= least); });  // true is -1
  return sum(counts);
}

template <typename Source>
int32_t largest_of(const Source& source) {
  ints most{};
  for_registers(source, [&](ints here) { most = larger(most, here); });
  return largest(most);
}

// A number that at least k reach: the largest such multiple of 2^kLast, or one that exactly k reach. All
// are at most `high`, and k of them at least `low`.
template <int kLast, typename Source>
int32_t bound(const Source& source, int64_t k, int32_t low, int32_t high) {
  if (low == high) return low;
  const int first = 31 - __builtin_clz(uint32_t(low ^ high));  // above it low and high are alike
  int32_t found = high & int32_t(-(int64_t{2} << first));
  for (int bit = first; bit >= kLast; --bit) {
    const int32_t next = found | 1 << bit;
    const int64_t reach = count_at_least(source, next);
    if (reach < k) continue;
    found = next;
    if (reach == k) break;
  }
  return found;
}

template <typename Source>
Rank exactly(const Source& source, int64_t k, int32_t low) {
  const int32_t found = bound<0>(source, k, low, largest_of(source));
  ints least = all(-INT32_MAX);  // of those that reach it, negative
  for_registers(source, [&](ints here) {
    least = larger(least, here >= found ? -here : all(-INT32_MAX));
  });
  const int32_t kth = -largest(least);
  return {kth, count_at_least(source, kth + 1)};
}

// The maxima of groups that cover most of x; returns how many.
int64_t maxima_of_groups(const float* x, int64_t n, int64_t k, int32_t* maxima) {
  const int64_t segments = (kGroupsPerEntry * k + kMaxima - 1) / kMaxima;
  const int64_t rows = n / (segments * kMaxima);
  for (int64_t segment = 0; segment < segments; ++segment) {
    ints most[kAccumulators] = {};
    for (int64_t row = 0; row < rows; ++row, x += kMaxima)
#pragma GCC unroll 8
      for (int i = 0; i < kAccumulators; ++i)
        most[i] = larger(most[i], magnitudes(load_floats(x + i * kLanes)));
    for (int i = 0; i < kAccumulators; ++i)
      store_as(maxima + segment * kMaxima + i * kLanes, alike(most[i]));
  }
  return segments * kMaxima;
}

// False if more than kCandidates reach the bound.
bool kth_of_few(const float* x, int64_t n, int64_t k, Rank* rank) {
  int32_t numbers[kGroupsPerEntry * kFew + kMaxima];
  static_assert(kGroupsPerEntry * kFew >= kCandidates);
  const Numbers maxima{numbers, maxima_of_groups(x, n, k, numbers)};
  const int32_t least = bound<kCoarse>(maxima, k, 0, largest_of(maxima));
  int64_t found = 0;
  for_large(x, n, least > 0 ? least : 1, [&](int64_t i) {
    if (found < kCandidates) numbers[found] = alike(magnitude(x[i]));
    ++found;
  });
  if (found > kCandidates) return false;
  *rank = found < k ? Rank{0, found} : exactly(Numbers{numbers, found}, k, least);
  return true;
}

Rank kth(const float* x, int64_t n, int64_t k) {
  Rank rank;
  if (k <= kFew && 2 * kGroupsPerEntry * k <= n && n >= 8 * kMaxima && kth_of_few(x, n, k, &rank))
    return rank;
  return exactly(Tensor{x, n}, k, 0);
}

void count_high(const float* x, int64_t n, int32_t least, uint32_t* counts) {
  for_large(x, n, least, [&](int64_t i) { ++counts[magnitude(x[i]) >> 15]; });
}

void count_low(const float* x, int64_t n, int32_t high, uint32_t* counts) {
  const auto add = [&](int64_t i) {
    const int32_t here = magnitude(x[i]);
    if (here >> 15 == high) ++counts[here & (codec::kLow - 1)];
  };
  int64_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    const uint64_t above = at_least(x + i, (high + 1) << 15);
    for (uint64_t bits = at_least(x + i, high << 15) & ~above; bits != 0; bits &= bits - 1)
      add(i + __builtin_ctzll(bits));
  }
  for (; i < n; ++i) add(i);
}

}  // namespace

extern const codec::RankKernels codec_rank_kernels;
const codec::RankKernels codec_rank_kernels = {kth, count_high, count_low};

}  // namespace oarlock::OARLOCK_PATH
