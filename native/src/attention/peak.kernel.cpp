// As many multiplications with addition as the processor can do: what benchmarks compare kernels with.

#include "attention/kernels.h"
#include "attention/vector.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using namespace oarlock::attention;

// `rounds` times kBlockRows * kBlockRegisters of them in registers, none waiting for another.
int64_t multiply_adds(int64_t rounds, float* out) {
  floats sums[kBlockRows][kBlockRegisters];
  const floats a = load_floats(out), b = load_floats(out + kLanes);
#pragma GCC unroll 16
  for (int r = 0; r < kBlockRows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < kBlockRegisters; ++c) sums[r][c] = a * all(float(r * kBlockRegisters + c));
  for (int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 16
    for (int r = 0; r < kBlockRows; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < kBlockRegisters; ++c) sums[r][c] = multiply_add(sums[r][c], a, b);
  floats total = floats{};
#pragma GCC unroll 16
  for (int r = 0; r < kBlockRows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < kBlockRegisters; ++c) total += sums[r][c];
  store_floats(out, total);
  return rounds * kBlockRows * kBlockRegisters * kLanes;
}

}  // namespace

extern const PeakKernels attention_peak_kernels;
const PeakKernels attention_peak_kernels = {multiply_adds};

}  // namespace oarlock::OARLOCK_PATH
