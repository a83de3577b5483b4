// Entry points of the optimisers that scale each tensor's step by norms of the whole tensor.

#include <cmath>

#include "core/error.h"
#include "optim/arguments.h"
#include "optim/entry.h"

OARLOCK_DECLARE_KERNELS(oarlock::optim::Kernels, optim_kernels)
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
      const double weight = tensor_sum(plan, tensor, norms.data(), 2);
      const double direction = tensor_sum(plan, tensor, norms.data() + 1, 2);
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

// ratios[i] gets the trust ratio of tensor i.
OARLOCK_API std::int32_t oarlock_optim_lars(const oarlock_tensors* params,
                                            const oarlock_tensors* grads,
                                            const oarlock_tensors* buffers,
                                            const oarlock_lars_options* o, double* ratios,
                                            std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_step(*params, *grads, {buffers});
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*buffers, Access::write}});
    const LarsScalars s = scalars(*o);
    const auto squared_norm = OARLOCK_KERNELS(optim_kernels).squared_norm;
    const LayerwiseKernels& kernels = OARLOCK_KERNELS(layerwise_kernels);
    const Plan plan(*params);
    std::vector<double> norms(2 * plan.size());
    for_chunks(plan, threads, [&](const Chunk& c, std::int64_t i) {
      norms[2 * i] = squared_norm[type_of(params->items[c.tensor])](at(*params, c), c.count);
      norms[2 * i + 1] = squared_norm[type_of(grads->items[c.tensor])](at(*grads, c), c.count);
    });
    for (std::int64_t tensor = 0; tensor < params->count; ++tensor) {
      const double weight = std::sqrt(tensor_sum(plan, tensor, norms.data(), 2));
      const double grad = std::abs(o->grad_scale) *
                          std::sqrt(tensor_sum(plan, tensor, norms.data() + 1, 2));
      double ratio = 1.0;
      if (std::isnan(weight) || std::isnan(grad))
        ratio = weight + grad;
      else if (weight > 0 && grad > 0)
        ratio = o->trust_coefficient * weight / (grad + o->weight_decay * weight + o->eps);
      ratios[tensor] = ratio;
    }
    for_chunks(plan, threads, [&](const Chunk& c, std::int64_t) {
      kernels.lars[types_of(*params, *grads, c.tensor)](
          at(*params, c), at(*grads, c), at<float>(*buffers, c), c.count, s,
          static_cast<float>(o->lr * ratios[c.tensor]), rounding(o->rounding, c));
    });
  });
}

OARLOCK_API std::int32_t oarlock_optim_mars_adamw(
    const oarlock_tensors* params, const oarlock_tensors* grads, const oarlock_tensors* previous,
    const oarlock_tensors* m, const oarlock_tensors* v, const oarlock_mars_options* o,
    std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_step(*params, *grads, {previous, m, v});
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*previous, Access::write},
                   {*m, Access::write}, {*v, Access::write}});
    const MarsScalars s = scalars(*o);
    const LayerwiseKernels& kernels = OARLOCK_KERNELS(layerwise_kernels);
    const Plan plan(*params);
    std::vector<float> clips(params->count, 1.0f);
    if (o->max_norm > 0) {
      std::vector<double> squares(plan.size());
      for_chunks(plan, threads, [&](const Chunk& c, std::int64_t i) {
        squares[i] = kernels.mars_squares[type_of(grads->items[c.tensor])](
            at(*grads, c), at<float>(*previous, c), c.count, s);
      });
      for (std::int64_t tensor = 0; tensor < params->count; ++tensor) {
        const double norm = std::sqrt(tensor_sum(plan, tensor, squares.data(), 1));
        if (!(norm <= o->max_norm)) clips[tensor] = static_cast<float>(o->max_norm / norm);
      }
    }
    for_chunks(plan, threads, [&](const Chunk& c, std::int64_t) {
      kernels.mars[types_of(*params, *grads, c.tensor)](
          at(*params, c), at(*grads, c), at<float>(*previous, c), at<float>(*m, c),
          at<float>(*v, c), c.count, s, clips[c.tensor], rounding(o->rounding, c));
    });
  });
}
