// Entry points of the largest entries of a whole tensor.

#include <atomic>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "codec/arguments.h"
#include "codec/entries.h"
#include "codec/kernels.h"
#include "codec/parts.h"
#include "core/dispatch.h"

OARLOCK_DECLARE_KERNELS(oarlock::codec::RankKernels, codec_rank_kernels)
OARLOCK_DECLARE_KERNELS(oarlock::codec::TakeKernels, codec_take_kernels)

using namespace oarlock;
using namespace oarlock::codec;

namespace {

// Where the k-th is, counted from the end of `counts`; k becomes its number there.
std::int32_t place_of(const std::uint32_t* counts, std::int64_t size, std::int64_t* k) {
  for (std::int64_t i = size - 1;; --i) {
    if (*k <= counts[i] || i == 0) return static_cast<std::int32_t>(i);
    *k -= counts[i];
  }
}

// Counts of all parts of a tensor, added up: count(begin, end, counts) adds those of one.
template <typename Count>
std::vector<std::uint32_t> counts_of(std::int64_t n, std::int64_t size, std::int32_t threads,
                                     const Count& count) {
  const std::int64_t parts = std::clamp<std::int64_t>(n / (4 * size), 1, threads);
  std::vector<std::uint32_t> counts(parts * size);
  parallel_for(parts, threads, [&](std::int64_t part) {
    count(n * part / parts, n * (part + 1) / parts, counts.data() + part * size);
  });
  for (std::int64_t i = size; i < parts * size; ++i) counts[i % size] += counts[i];
  counts.resize(size);
  return counts;
}

// A bound that about twice as many as k reach, from one in 64 elements; 0 if k is large.
std::int32_t likely_bound(const RankKernels& kernels, const float* x, std::int64_t n,
                          std::int64_t k) {
  constexpr std::int64_t kStep = 1 << 16, kSample = kStep / 64;
  std::vector<std::uint32_t> counts(kHigh);
  std::int64_t rank = k / 32 + 64;
  if (rank > n / kStep * kSample / 4) return 0;
  for (std::int64_t i = 0; i + kStep <= n; i += kStep)
    kernels.count_high(x + i, kSample, 0, counts.data());
  return place_of(counts.data(), kHigh, &rank) << 15;
}

std::int32_t kth_magnitude(const float* x, std::int64_t n, std::int64_t k, std::int32_t threads) {
  const RankKernels& kernels = OARLOCK_KERNELS(codec_rank_kernels);
  if (n <= kLargestChunk) return kernels.kth(x, n, k).least;
  const auto high_counts = [&](std::int32_t least) {
    return counts_of(n, kHigh, threads, [&](std::int64_t begin, std::int64_t end,
                                            std::uint32_t* counts) {
      kernels.count_high(x + begin, end - begin, least, counts);
    });
  };
  const std::int32_t least = likely_bound(kernels, x, n, k);
  std::vector<std::uint32_t> counts = high_counts(least);
  if (std::accumulate(counts.begin(), counts.end(), std::int64_t{0}) < k) counts = high_counts(0);
  const std::int32_t high = place_of(counts.data(), kHigh, &k);
  if (high > kNan >> 15) return kNan;
  counts = counts_of(n, kLow, threads, [&](std::int64_t begin, std::int64_t end,
                                           std::uint32_t* part) {
    kernels.count_low(x + begin, end - begin, high, part);
  });
  return std::min(kNan, high << 15 | place_of(counts.data(), kLow, &k));
}

std::int32_t bits_of(float threshold) {
  if (std::isnan(threshold)) return kNan;
  std::int32_t bits;
  static_assert(sizeof bits == sizeof threshold);
  __builtin_memcpy(&bits, &threshold, sizeof bits);
  return bits & 0x7fffffff;
}

}  // namespace

OARLOCK_API std::int32_t oarlock_codec_kth_magnitude(const oarlock_tensors* acc,
                                                     const oarlock_codec_options* o, float* found,
                                                     std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const oarlock_tensor& x = flat(*acc, {kFloat32}, Access::read);
    check_positions(*acc);
    if (o->k < 1 || o->k > x.count)
      throw BadArgument("k must be from 1 to " + elements_of(*acc) + ", not " +
                        std::to_string(o->k));
    const std::int32_t bits = kth_magnitude(data<float>(x), x.count, o->k, threads);
    if (bits == kNan)
      *found = std::numeric_limits<float>::quiet_NaN();
    else
      __builtin_memcpy(found, &bits, sizeof *found);
  });
}

// counts become: the number of entries, how many of them are above the threshold, and how many there is
// room for. Nothing else is changed if they do not fit, or more than `most` are above the threshold.
OARLOCK_API std::int32_t oarlock_codec_select(const oarlock_tensors* acc,
                                              const oarlock_tensors* indices,
                                              const oarlock_tensors* values,
                                              const oarlock_codec_options* o, std::int64_t* counts,
                                              std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Access access = o->keep ? Access::write : Access::read;
    const oarlock_tensor& x = flat(*acc, {kFloat32}, access);
    check_positions(*acc);
    const oarlock_tensor& places = flat(*indices, {kUint32}, Access::write);
    const oarlock_tensor& numbers = flat(*values, {kFloat32}, Access::write, places.count,
                                         elements_of(*indices));
    check_overlap({{*acc, access}, {*indices, Access::write}, {*values, Access::write}});
    const std::int32_t least = bits_of(o->threshold);
    const TakeKernels& kernels = OARLOCK_KERNELS(codec_take_kernels);

    struct Found {
      std::int64_t at_least, above, begin, equal;
    };
    const Parts parts(x.count, 1);
    std::vector<Found> found(parts.size());
    for_parts(parts, threads, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
      kernels.count(data<float>(x) + begin, end - begin, least, &found[part].at_least,
                    &found[part].above);
    });
    std::int64_t above = 0, equal = 0, taken = 0;
    for (const Found& one : found) above += one.above, equal += one.at_least - one.above;
    if (o->most >= 0) equal = std::min(equal, std::max<std::int64_t>(0, o->most - above));
    counts[0] = above + equal;
    counts[1] = above;
    counts[2] = places.count;
    if (counts[0] > places.count || (o->most >= 0 && above > o->most)) return;
    for (Found& one : found) {
      one.begin = taken;
      one.equal = std::min(equal, one.at_least - one.above);
      equal -= one.equal;
      taken += one.above + one.equal;
    }
    const auto take = kernels.take[o->keep != 0];
    std::atomic<bool> changed{false};
    for_parts(parts, threads, [&](std::int64_t part, std::int64_t begin, std::int64_t end) {
      const Found& one = found[part];
      const std::int64_t room = one.above + one.equal;
      if (room > 0 && room != take(data<float>(x) + begin, end - begin, least, one.equal, begin, room,
                                   data<std::uint32_t>(places) + one.begin,
                                   data<float>(numbers) + one.begin))
        changed = true;
    });
    if (changed) throw changed_meanwhile(*acc);
  });
}

OARLOCK_API std::int32_t oarlock_codec_select_add(const oarlock_tensors* indices,
                                                  const oarlock_tensors* values,
                                                  const oarlock_tensors* out,
                                                  const oarlock_codec_options* o,
                                                  std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const oarlock_tensor& y = flat(*out, {kFloat32}, Access::write);
    const oarlock_tensor& places = flat(*indices, {kUint32}, Access::read);
    const oarlock_tensor& numbers = flat(*values, {kFloat32}, Access::read, places.count,
                                         elements_of(*indices));
    check_overlap({{*indices, Access::read}, {*values, Access::read}, {*out, Access::write}});
    const auto* const index = data<std::uint32_t>(places);
    const std::int64_t wrong = first_wrong(index, places.count, y.count);
    if (wrong < places.count)
      throw BadArgument(item_name(*indices, 0) + " has " + std::to_string(index[wrong]) +
                        " as entry " + std::to_string(wrong) + ", but positions must rise and be "
                        "below " + elements_of(*out) + "; pass what select wrote");
    for_parts(Parts(places.count, 1), threads,
              [&](std::int64_t, std::int64_t begin, std::int64_t end) {
                add_entries(index + begin, data<float>(numbers) + begin, end - begin, o->weight,
                            data<float>(y));
              });
  });
}
