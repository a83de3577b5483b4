// Sums over the elements of a tensor, and the steps that are scaled by them.

#include "optim/rounding.h"
#include "optim/rules.h"
#include "optim/sums.h"

namespace oarlock::OARLOCK_PATH {
namespace {

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

template <typename P, typename G>
void lars(void* params, const void* grads, float* __restrict buffer, int64_t n,
          const LarsScalars& scalars, float step_size, const Rounding& rounding) {
  P* __restrict p = static_cast<P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const LarsScalars s = scalars;
  with_store(p, rounding, [&](const auto store) {
    for (int64_t i = 0; i < n; ++i)
      store(p, i, lars_rule(load(p, i), load(g, i), buffer[i], s, step_size));
  });
}

template <typename G>
double mars_squares(const void* grads, const float* previous, int64_t n,
                    const MarsScalars& scalars) {
  const G* const g = static_cast<const G*>(grads);
  const MarsScalars s = scalars;
  const bool corrected = s.correction != 0.0f;
  doubles lanes[kRegisters] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    __builtin_prefetch(g + i + 2 * kAhead / sizeof(G));
    __builtin_prefetch(previous + i + 2 * kAhead / sizeof(float));
    for (int r = 0; r < kRegisters; ++r) {
      floats x = load_floats(g + i + r * kWidth) * s.adamw.grad_scale;
      if (corrected) x = x + s.correction * (x - load_floats(previous + i + r * kWidth));
      const doubles value = widen(x);
      lanes[r] += value * value;
    }
  }
  LaneSum sum;
  __builtin_memcpy(sum.lanes, lanes, sizeof lanes);
  for (int lane = 0; i < n; ++i, ++lane) {
    const double value = mars_gradient(load(g, i) * s.adamw.grad_scale, previous[i], s);
    sum.lanes[lane] += value * value;
  }
  return sum.total();
}

template <typename P, typename G>
void mars(void* params, const void* grads, float* __restrict previous, float* __restrict m,
          float* __restrict v, int64_t n, const MarsScalars& scalars, float clip,
          const Rounding& rounding) {
  P* __restrict p = static_cast<P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const MarsScalars s = scalars;
  with_store(p, rounding, [&](const auto store) {
    for (int64_t i = 0; i < n; ++i)
      store(p, i, mars_rule(load(p, i), load(g, i), previous[i], m[i], v[i], s, clip));
  });
}

}  // namespace

extern const LayerwiseKernels layerwise_kernels;
const LayerwiseKernels layerwise_kernels = {
    {lamb_moments<float, float>, lamb_moments<bfloat16, float>, lamb_moments<bfloat16, bfloat16>},
    {lamb_apply<float>, lamb_apply<bfloat16>, lamb_apply<bfloat16>},
    {lars<float, float>, lars<bfloat16, float>, lars<bfloat16, bfloat16>},
    {mars_squares<float>, mars_squares<bfloat16>},
    {mars<float, float>, mars<bfloat16, float>, mars<bfloat16, bfloat16>},
};

}  // namespace oarlock::OARLOCK_PATH
