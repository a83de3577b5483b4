// Loops that do nothing but move memory: what benchmarks compare kernels with.

#include "core/kernel.h"
#include "core/stream.h"

namespace oarlock::OARLOCK_PATH {
namespace {

void axpy(float* __restrict y, const float* __restrict x, int64_t n, float a) {
  for (int64_t i = 0; i < n; ++i) y[i] = y[i] + a * x[i];
}

void triad(float* __restrict z, const float* __restrict x, const float* __restrict y, int64_t n,
           float a) {
  for (int64_t i = 0; i < n; ++i) z[i] = x[i] + a * y[i];
}

// In many partial sums, so that it waits for memory only.
float sum(const float* x, int64_t n) {
  constexpr int kSums = 128;
  float sums[kSums] = {}, rest = 0;
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums)
    for (int j = 0; j < kSums; ++j) sums[j] += x[i + j];
  for (; i < n; ++i) rest += x[i];
  for (int j = 0; j < kSums; ++j) rest += sums[j];
  return rest;
}

}  // namespace

extern const StreamKernels stream_kernels;
const StreamKernels stream_kernels = {axpy, triad, sum};

}  // namespace oarlock::OARLOCK_PATH
