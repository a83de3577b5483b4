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

template <typename G>
double adafactor_squares(const void* grads, int64_t n, int64_t column, int64_t width,
                         const float* rows, const float* columns) {
  const G* g = static_cast<const G*>(grads);
  doubles lanes[kRegisters] = {};
  LaneSum sum;
  for (int64_t count; n > 0; n -= count, g += count, ++rows, column = 0) {
    count = width - column < n ? width - column : n;
    const float row = *rows;
    const float* const factors = columns + column;
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      __builtin_prefetch(g + i + 2 * kAhead / sizeof(G));
      for (int r = 0; r < kRegisters; ++r) {
        const int64_t at = i + r * kWidth;
        const doubles value = widen(load_floats(g + at) * row * load_floats(factors + at));
        lanes[r] += value * value;
      }
    }
    for (int lane = 0; i < count; ++i, ++lane) {
      const double value = load(g, i) * row * factors[i];
      sum.lanes[lane] += value * value;
    }
  }
  LaneSum whole;
  __builtin_memcpy(whole.lanes, lanes, sizeof lanes);
  for (int lane = 0; lane < kLanes; ++lane) sum.lanes[lane] += whole.lanes[lane];
  return sum.total();
}

template <typename P, typename G>
void adafactor(void* params, const void* grads, int64_t n, int64_t column, int64_t width,
               const float* rows, const float* columns, const AdafactorScalars& scalars,
               const Rounding& rounding) {
  P* __restrict p = static_cast<P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const AdafactorScalars s = scalars;
  with_store(p, rounding, [&](const auto store) {
    for (int64_t begin = 0, end; begin < n; begin = end, ++rows, column = 0) {
      end = width - column < n - begin ? begin + width - column : n;
      const float row = *rows;
      const float* __restrict factors = columns + column;
      for (int64_t i = begin; i < end; ++i) {
        const float update = load(g, i) * row * factors[i - begin];
        store(p, i, load(p, i) * s.decay - s.step_size * update);
      }
    }
  });
}

template <typename G>
void block_squares(const void* grads, int64_t n, int64_t offset, int64_t block, double* sums) {
  const G* g = static_cast<const G*>(grads);
  for (int64_t count; n > 0; n -= count, g += count, ++sums, offset = 0) {
    count = block - offset < n ? block - offset : n;
    *sums = squared_norm<G>(g, count);
  }
}

template <typename P, typename G>
void adam_mini(void* params, const void* grads, float* __restrict m, int64_t n, int64_t offset,
               int64_t block, const float* denominators, const AdamwScalars& scalars,
               const Rounding& rounding) {
  P* __restrict p = static_cast<P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const AdamwScalars s = scalars;
  with_store(p, rounding, [&](const auto store) {
    for (int64_t begin = 0, end; begin < n; begin = end, ++denominators, offset = 0) {
      end = block - offset < n - begin ? begin + block - offset : n;
      const float denominator = *denominators;
      for (int64_t i = begin; i < end; ++i)
        store(p, i, adam_mini_rule(load(p, i), load(g, i), m[i], denominator, s));
    }
  });
}

}  // namespace

extern const FactoredKernels factored_kernels;
const FactoredKernels factored_kernels = {
    {row_squares<float>, row_squares<bfloat16>},
    {adafactor_squares<float>, adafactor_squares<bfloat16>},
    {adafactor<float, float>, adafactor<bfloat16, float>, adafactor<bfloat16, bfloat16>},
    {block_squares<float>, block_squares<bfloat16>},
    {adam_mini<float, float>, adam_mini<bfloat16, float>, adam_mini<bfloat16, bfloat16>},
};

}  // namespace oarlock::OARLOCK_PATH
