// The update rules over ranges of elements, and sums of squares.

#include "optim/rounding.h"
#include "optim/rules.h"
#include "optim/sums.h"

namespace oarlock::OARLOCK_PATH {
namespace {

template <typename P, typename G>
void adamw(void* params, const void* grads, float* __restrict m, float* __restrict v, int64_t n,
           const AdamwScalars& scalars, const Rounding& rounding) {
  P* __restrict p = static_cast<P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const AdamwScalars s = scalars;
  with_store(p, rounding, [&](const auto store) {
    for (int64_t i = 0; i < n; ++i)
      store(p, i, adamw_rule(load(p, i), load(g, i), m[i], v[i], s));
  });
}

template <typename P, typename G>
void lion(void* params, const void* grads, float* __restrict m, int64_t n,
          const LionScalars& scalars, const Rounding& rounding) {
  P* __restrict p = static_cast<P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const LionScalars s = scalars;
  with_store(p, rounding, [&](const auto store) {
    for (int64_t i = 0; i < n; ++i) store(p, i, lion_rule(load(p, i), load(g, i), m[i], s));
  });
}

template <typename P, typename G>
void sgd(void* params, const void* grads, float* __restrict buffer, int64_t n,
         const SgdScalars& scalars, const Rounding& rounding) {
  P* __restrict p = static_cast<P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const SgdScalars s = scalars;
  with_store(p, rounding, [&](const auto store) {
    if (buffer == nullptr)
      for (int64_t i = 0; i < n; ++i) store(p, i, sgd_rule(load(p, i), load(g, i), s));
    else
      for (int64_t i = 0; i < n; ++i)
        store(p, i, momentum_rule(load(p, i), load(g, i), buffer[i], s));
  });
}

template <typename P, typename G>
void lamb_moments(const void* params, const void* grads, float* __restrict m, float* __restrict v,
                  int64_t n, const LambScalars& scalars, double* norms) {
  const P* __restrict p = static_cast<const P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const LambScalars s = scalars;
  LaneSum weights, directions;
  const auto element = [&](int64_t i, int lane) {
    lamb_moments_rule(load(g, i), m[i], v[i], s);
    const double weight = load(p, i), direction = lamb_direction(load(p, i), m[i], v[i], s);
    weights.lanes[lane] += weight * weight;
    directions.lanes[lane] += direction * direction;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) element(i + lane, lane);
  for (int lane = 0; i < n; ++i, ++lane) element(i, lane);
  norms[0] = weights.total();
  norms[1] = directions.total();
}

template <typename P>
void lamb_apply(void* params, const float* __restrict m, const float* __restrict v, int64_t n,
                const LambScalars& scalars, float step_size, const Rounding& rounding) {
  P* __restrict p = static_cast<P*>(params);
  const LambScalars s = scalars;
  with_store(p, rounding, [&](const auto store) {
    for (int64_t i = 0; i < n; ++i)
      store(p, i, load(p, i) - step_size * lamb_direction(load(p, i), m[i], v[i], s));
  });
}

// Reads four parts side by side, because one stream does not keep a core's memory requests busy.
template <typename T>
double squared_norm(const void* data, int64_t n) {
  const T* const x = static_cast<const T*>(data);
  const int64_t part = n / (kStreams * kLanes) * kLanes;
  doubles lanes[kRegisters] = {};
  for (int64_t i = 0; i < part; i += kLanes)
    for (int stream = 0; stream < kStreams; ++stream) {
      const T* const here = x + stream * part + i;
      __builtin_prefetch(here + kAhead / sizeof(T));
      for (int r = 0; r < kRegisters; ++r) {
        const doubles value = widen(load_floats(here + r * kWidth));
        lanes[r] += value * value;
      }
    }
  LaneSum sum;
  __builtin_memcpy(sum.lanes, lanes, sizeof lanes);
  for (int64_t i = kStreams * part; i < n; ++i) {
    const double value = load(x, i);
    sum.lanes[i % kLanes] += value * value;
  }
  return sum.total();
}

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

extern const Kernels optim_kernels;
const Kernels optim_kernels = {
    {adamw<float, float>, adamw<bfloat16, float>, adamw<bfloat16, bfloat16>},
    {lion<float, float>, lion<bfloat16, float>, lion<bfloat16, bfloat16>},
    {sgd<float, float>, sgd<bfloat16, float>, sgd<bfloat16, bfloat16>},
    {lamb_moments<float, float>, lamb_moments<bfloat16, float>, lamb_moments<bfloat16, bfloat16>},
    {lamb_apply<float>, lamb_apply<bfloat16>, lamb_apply<bfloat16>},
    {squared_norm<float>, squared_norm<bfloat16>},
    {row_squares<float>, row_squares<bfloat16>},
};

}  // namespace oarlock::OARLOCK_PATH
