// Counting large magnitudes, and taking them out.

#include "codec/magnitudes.h"

namespace oarlock::OARLOCK_PATH {
namespace {

void count(const float* x, int64_t n, int32_t least, int64_t* at_least, int64_t* above) {
  ints least_counts{}, above_counts{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const ints here = alike(magnitudes(load_floats(x + i)));
    least_counts -= (ints)(here >= least);  // true is -1
    above_counts -= (ints)(here > least);
  }
  int64_t sums[2] = {sum(least_counts), sum(above_counts)};
  for (; i < n; ++i) {
    const int32_t here = alike(magnitude(x[i]));
    sums[0] += here >= least;
    sums[1] += here > least;
  }
  *at_least = sums[0];
  *above = sums[1];
}

template <typename Index, bool kKeep>
int64_t take(float* x, int64_t n, int32_t least, int64_t equal, int64_t base, int64_t room,
             Index* __restrict indices, float* __restrict values) {
  int64_t taken = 0;
  for_large(x, n, least, [&](int64_t i) {
    const float value = x[i];
    const int32_t here = alike(magnitude(value));
    if (here == least && --equal < 0) return;
    if (++taken > room) return;
    indices[taken - 1] = Index(base + i);
    values[taken - 1] = value;
    if (kKeep) x[i] = here < 0x7f800000 ? 0.0f : from_bits(kQuietNan);  // value - value
  });
  return taken;
}

}  // namespace

extern const codec::TakeKernels codec_take_kernels;
const codec::TakeKernels codec_take_kernels = {
    count,
    {take<uint16_t, false>, take<uint16_t, true>},
    {take<uint32_t, false>, take<uint32_t, true>},
};

}  // namespace oarlock::OARLOCK_PATH
