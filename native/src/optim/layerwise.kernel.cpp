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

}  // namespace

extern const LayerwiseKernels layerwise_kernels;
const LayerwiseKernels layerwise_kernels = {
    {lamb_moments<float, float>, lamb_moments<bfloat16, float>, lamb_moments<bfloat16, bfloat16>},
    {lamb_apply<float>, lamb_apply<bfloat16>, lamb_apply<bfloat16>},
};

}  // namespace oarlock::OARLOCK_PATH
