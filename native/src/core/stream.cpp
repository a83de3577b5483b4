#include "core/stream.h"

#include <algorithm>

#include "core/abi.h"
#include "core/dispatch.h"
#include "core/error.h"
#include "core/parallel.h"

OARLOCK_DECLARE_KERNELS(oarlock::StreamKernels, stream_kernels)

namespace oarlock {
namespace {

constexpr std::int64_t kChunk = std::int64_t{1} << 16;

template <typename Body>
std::int32_t in_chunks(std::int64_t n, std::int32_t threads, const Body& body) {
  return guarded([&] {
    parallel_for((n + kChunk - 1) / kChunk, threads, [&](std::int64_t chunk) {
      const std::int64_t begin = chunk * kChunk;
      body(begin, std::min(kChunk, n - begin));
    });
  });
}

}  // namespace
}  // namespace oarlock

using namespace oarlock;

// y += a x: reads 8 bytes and writes 4 for each element, nothing more.
OARLOCK_API std::int32_t oarlock_stream_axpy(float* y, const float* x, std::int64_t n, float a,
                                             std::int32_t threads) {
  const StreamKernels& kernels = OARLOCK_KERNELS(stream_kernels);
  return in_chunks(n, threads, [&](std::int64_t begin, std::int64_t count) {
    kernels.axpy(y + begin, x + begin, count, a);
  });
}

// z = x + a y: reads 8 bytes and writes 4 for each element; most processors also read z first.
OARLOCK_API std::int32_t oarlock_stream_triad(float* z, const float* x, const float* y,
                                              std::int64_t n, float a, std::int32_t threads) {
  const StreamKernels& kernels = OARLOCK_KERNELS(stream_kernels);
  return in_chunks(n, threads, [&](std::int64_t begin, std::int64_t count) {
    kernels.triad(z + begin, x + begin, y + begin, count, a);
  });
}

// sums[i] of the i-th 65536 numbers of x: reads 4 bytes for each element.
OARLOCK_API std::int32_t oarlock_stream_sum(float* sums, const float* x, std::int64_t n, float,
                                            std::int32_t threads) {
  const StreamKernels& kernels = OARLOCK_KERNELS(stream_kernels);
  return in_chunks(n, threads, [&](std::int64_t begin, std::int64_t count) {
    sums[begin / kChunk] = kernels.sum(x + begin, count);
  });
}
