// Entry points of the optimisers that scale each tensor's step by norms of the whole tensor.

#include <cmath>

#include "core/error.h"
#include "optim/arguments.h"
#include "optim/entry.h"

OARLOCK_DECLARE_KERNELS(oarlock::optim::LayerwiseKernels, layerwise_kernels)

using namespace oarlock;
using namespace oarlock::optim;

// ratios[i] gets the trust ratio of tensor i.
OARLOCK_API std::int32_t oarlock_optim_lamb(const oarlock_tensors* params,
                                            const oarlock_tensors* grads,
                                            const oarlock_tensors* m, const oarlock_tensors* v,
                                            const oarlock_lamb_options* o, double* ratios,
                                            std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_step(*params, *grads, {m, v});
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*m, Access::write},
                   {*v, Access::write}});
    const LambScalars s = scalars(*o);
    const LayerwiseKernels& kernels = OARLOCK_KERNELS(layerwise_kernels);
    const Plan plan(*params);
    std::vector<double> norms(2 * plan.size());
    for_chunks(plan, threads, [&](const Chunk& c, std::int64_t i) {
      kernels.lamb_moments[types_of(*params, *grads, c.tensor)](
          at(*params, c), at(*grads, c), at<float>(*m, c), at<float>(*v, c), c.count, s,
          norms.data() + 2 * i);
    });
    for (std::int64_t tensor = 0; tensor < params->count; ++tensor) {
      double weight = 0, direction = 0;
      for (std::int64_t i = plan.first(tensor); i < plan.first(tensor + 1); ++i) {
        weight += norms[2 * i];
        direction += norms[2 * i + 1];
      }
      double ratio = weight > 0 && direction > 0 ? std::sqrt(weight / direction) : 1.0;
      if (std::isnan(weight) || std::isnan(direction)) ratio = weight + direction;
      if (o->max_trust_ratio > 0 && ratio > o->max_trust_ratio) ratio = o->max_trust_ratio;
      ratios[tensor] = ratio;
    }
    for_chunks(plan, threads, [&](const Chunk& c, std::int64_t) {
      kernels.lamb_apply[types_of(*params, *grads, c.tensor)](
          at(*params, c), at<float>(*m, c), at<float>(*v, c), c.count, s,
          static_cast<float>(o->lr * ratios[c.tensor]), rounding(o->rounding, c));
    });
  });
}
