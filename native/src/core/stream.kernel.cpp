// Two loops that do nothing but move memory: what benchmarks compare kernels with.

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

}  // namespace

extern const StreamKernels stream_kernels;
const StreamKernels stream_kernels = {axpy, triad};

}  // namespace oarlock::OARLOCK_PATH
