// Entry points for benchmarks and tests.

#include "attention/kernels.h"
#include "core/dispatch.h"
#include "core/error.h"
#include "core/parallel.h"
#include "core/tensors.h"

OARLOCK_DECLARE_KERNELS(oarlock::attention::ForwardKernels, attention_forward_kernels)
OARLOCK_DECLARE_KERNELS(oarlock::attention::PeakKernels, attention_peak_kernels)

using namespace oarlock;
using namespace oarlock::attention;

// Multiplications with addition in registers on `threads` threads, `rounds` rounds on each; adds to
// `count` how many numbers were multiplied.
OARLOCK_API std::int32_t oarlock_attention_peak(std::int64_t rounds, std::int64_t* count,
                                                std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const PeakKernels& kernels = OARLOCK_KERNELS(attention_peak_kernels);
    std::atomic<std::int64_t> done{0};
    parallel_for(threads, threads, [&](std::int64_t) {
      float numbers[32];
      for (float& x : numbers) x = 0.5f;
      done += kernels.multiply_adds(rounds, numbers);
    });
    *count += done;
  });
}

// The kernels' 2^x.
OARLOCK_API std::int32_t oarlock_attention_exp2(const float* x, float* y, std::int64_t n) {
  return guarded([&] { OARLOCK_KERNELS(attention_forward_kernels).exp2(x, y, n); });
}
