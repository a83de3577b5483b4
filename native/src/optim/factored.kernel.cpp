// Second moments shared by rows, columns or blocks: their sums, and the steps that use them.

#include "optim/rounding.h"
#include "optim/rules.h"
#include "optim/sums.h"

namespace oarlock::OARLOCK_PATH {
namespace {

template <typename T>
double row_squares(const void* data, int64_t n, float scale, double* columns) {
  const T* const x = static_cast<const T*>(data);
  doubles lanes[kRegisters] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    __builtin_prefetch(x + i + 2 * kAhead / sizeof(T));
    for (int r = 0; r < kRegisters; ++r) {
      double* const column = columns + i + r * kWidth;
      const doubles value = widen(load_floats(x + i + r * kWidth) * scale);
      const doubles square = value * value;
      const doubles sum = load_as<doubles>(column) + square;
      __builtin_memcpy(column, &sum, sizeof sum);
      lanes[r] += square;
    }
  }
  LaneSum sum;
  __builtin_memcpy(sum.lanes, lanes, sizeof lanes);
  for (int lane = 0; i < n; ++i, ++lane) {
    const double value = load(x, i) * scale;
    columns[i] += value * value;
    sum.lanes[lane] += value * value;
  }
  return sum.total();
}

}  // namespace

extern const FactoredKernels factored_kernels;
const FactoredKernels factored_kernels = {
    {row_squares<float>, row_squares<bfloat16>},
};

}  // namespace oarlock::OARLOCK_PATH
