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

// Four streams of `count` updates, a multiple of kLanes; g and columns advance by their steps from
// one stream to the next.
template <typename G>
inline __attribute__((always_inline)) void add_updates(const G* g, int64_t g_step,
                                                       const float (&rows)[kStreams],
                                                       const float* columns, int64_t column_step,
                                                       int64_t count, doubles* lanes) {
  for (int64_t i = 0; i < count; i += kLanes)
    for (int stream = 0; stream < kStreams; ++stream) {
      const G* const here = g + stream * g_step + i;
      const float* const column = columns + stream * column_step + i;
      __builtin_prefetch(here + kAhead / sizeof(G));
      for (int r = 0; r < kRegisters; ++r) {
        const floats factors = load_floats(column + r * kWidth);
        const doubles value = widen(load_floats(here + r * kWidth) * rows[stream] * factors);
        lanes[r] += value * value;
      }
    }
}

template <typename G>
inline void add_updates(const G* g, float row, const float* columns, int64_t count, LaneSum& sum) {
  for (int64_t i = 0; i < count; ++i) {
    const double value = load(g, i) * row * columns[i];
    sum.lanes[i % kLanes] += value * value;
  }
}

// Reads four rows side by side, or four parts of one where rows are long.
template <typename G>
double adafactor_squares(const void* grads, int64_t n, int64_t column, int64_t width,
                         const float* rows, const float* columns) {
  const G* g = static_cast<const G*>(grads);
  doubles lanes[kRegisters] = {};
  LaneSum sum;
  while (n > 0) {
    const int64_t step = column == 0 ? n / width / kStreams : 0;  // rows from stream to stream
    const int64_t count = step > 0 || width - column < n ? width - column : n;
    if (step > 0) {
      const int64_t even = count / kLanes * kLanes;
      for (int64_t k = 0; k < step; ++k) {
        float factors[kStreams];
        for (int stream = 0; stream < kStreams; ++stream) factors[stream] = rows[k + stream * step];
        add_updates(g + k * width, step * width, factors, columns, 0, even, lanes);
        for (int64_t row = k; even < width && row < kStreams * step; row += step)
          add_updates(g + row * width + even, rows[row], columns + even, width - even, sum);
      }
    } else {
      const int64_t part = count / (kStreams * kLanes) * kLanes, even = kStreams * part;
      const float factors[kStreams] = {*rows, *rows, *rows, *rows};
      const float* const from = columns + column;
      add_updates(g, part, factors, from, part, part, lanes);
      add_updates(g + even, *rows, from + even, count - even, sum);
    }
    const int64_t done = step > 0 ? kStreams * step * width : count;
    rows += step > 0 ? kStreams * step : 1;
    g += done, n -= done, column = 0;
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

// Reads four blocks side by side while there are as many whole ones.
template <typename G>
void block_squares(const void* grads, int64_t n, int64_t offset, int64_t block, double* sums) {
  const G* g = static_cast<const G*>(grads);
  while (n > 0) {
    const int64_t step = offset == 0 ? n / block / kStreams : 0;  // blocks from stream to stream
    if (step == 0) {
      const int64_t count = block - offset < n ? block - offset : n;
      *sums++ = squared_norm<G>(g, count);
      g += count, n -= count, offset = 0;
      continue;
    }
    for (int64_t k = 0; k < step; ++k) {
      doubles lanes[kStreams][kRegisters] = {};
      int64_t i = 0;
      for (; i + kLanes <= block; i += kLanes)
        for (int stream = 0; stream < kStreams; ++stream) {
          const G* const here = g + (k + stream * step) * block + i;
          __builtin_prefetch(here + kAhead / sizeof(G));
          for (int r = 0; r < kRegisters; ++r) {
            const doubles value = widen(load_floats(here + r * kWidth));
            lanes[stream][r] += value * value;
          }
        }
      for (int stream = 0; stream < kStreams; ++stream) {
        const G* const here = g + (k + stream * step) * block;
        LaneSum sum;
        __builtin_memcpy(sum.lanes, lanes[stream], sizeof sum.lanes);
        for (int64_t rest = i; rest < block; ++rest) {
          const double value = load(here, rest);
          sum.lanes[rest - i] += value * value;
        }
        sums[k + stream * step] = sum.total();
      }
    }
    g += kStreams * step * block, n -= kStreams * step * block, sums += kStreams * step;
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
