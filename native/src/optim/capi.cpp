// Entry points of the optimisers' kernels that go element by element, and of the squared norm.

#include "core/error.h"
#include "optim/arguments.h"
#include "optim/entry.h"

OARLOCK_DECLARE_KERNELS(oarlock::optim::Kernels, optim_kernels)

using namespace oarlock;
using namespace oarlock::optim;

OARLOCK_API std::int32_t oarlock_optim_adamw(const oarlock_tensors* params,
                                             const oarlock_tensors* grads,
                                             const oarlock_tensors* m, const oarlock_tensors* v,
                                             const oarlock_adamw_options* o,
                                             std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_step(*params, *grads, {m, v});
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*m, Access::write},
                   {*v, Access::write}});
    const AdamwScalars s = scalars(*o);
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
    for_chunks(Plan(*params), threads, [&](const Chunk& c, std::int64_t) {
      kernels.adamw[types_of(*params, *grads, c.tensor)](
          at(*params, c), at(*grads, c), at<float>(*m, c), at<float>(*v, c), c.count, s,
          rounding(o->rounding, c));
    });
  });
}

OARLOCK_API std::int32_t oarlock_optim_lion(const oarlock_tensors* params,
                                            const oarlock_tensors* grads,
                                            const oarlock_tensors* m,
                                            const oarlock_lion_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_step(*params, *grads, {m});
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*m, Access::write}});
    const LionScalars s = scalars(*o);
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
    for_chunks(Plan(*params), threads, [&](const Chunk& c, std::int64_t) {
      kernels.lion[types_of(*params, *grads, c.tensor)](at(*params, c), at(*grads, c),
                                                        at<float>(*m, c), c.count, s,
                                                        rounding(o->rounding, c));
    });
  });
}

// `buffers` may be null: plain gradient descent.
OARLOCK_API std::int32_t oarlock_optim_sgd(const oarlock_tensors* params,
                                           const oarlock_tensors* grads,
                                           const oarlock_tensors* buffers,
                                           const oarlock_sgd_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const oarlock_tensors none{"momentum_buffers", nullptr, 0};
    if (buffers == nullptr) {
      check_step(*params, *grads, {});
      buffers = &none;
    } else {
      check_step(*params, *grads, {buffers});
    }
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*buffers, Access::write}});
    const SgdScalars s = scalars(*o);
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
    for_chunks(Plan(*params), threads, [&](const Chunk& c, std::int64_t) {
      kernels.sgd[types_of(*params, *grads, c.tensor)](
          at(*params, c), at(*grads, c), buffers->items ? at<float>(*buffers, c) : nullptr, c.count,
          s, rounding(o->rounding, c));
    });
  });
}

OARLOCK_API std::int32_t oarlock_optim_sophia(const oarlock_tensors* params,
                                              const oarlock_tensors* grads,
                                              const oarlock_tensors* m, const oarlock_tensors* h,
                                              const oarlock_sophia_options* o,
                                              std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_step(*params, *grads, {m});
    check_shapes(*h, *params);
    check_dtype(*h, {kFloat32});
    check_memory(*h, Access::read);
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*m, Access::write},
                   {*h, Access::read}});
    const SophiaScalars s = scalars(*o);
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
    for_chunks(Plan(*params), threads, [&](const Chunk& c, std::int64_t) {
      kernels.sophia[types_of(*params, *grads, c.tensor)](
          at(*params, c), at(*grads, c), at<float>(*m, c), at<float>(*h, c), c.count, s,
          rounding(o->rounding, c));
    });
  });
}

OARLOCK_API std::int32_t oarlock_optim_sophia_hessian(const oarlock_tensors* grads,
                                                      const oarlock_tensors* h,
                                                      const oarlock_sophia_hessian_options* o,
                                                      std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_dtype(*grads, {kFloat32, kBfloat16});
    check_memory(*grads, Access::read);
    check_shapes(*h, *grads);
    check_dtype(*h, {kFloat32});
    check_memory(*h, Access::write);
    check_overlap({{*grads, Access::read}, {*h, Access::write}});
    const auto keep = static_cast<float>(o->beta2);
    const auto take = static_cast<float>((1 - o->beta2) * o->scale);
    const auto grad_scale = static_cast<float>(o->grad_scale);
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
    for_chunks(Plan(*grads), threads, [&](const Chunk& c, std::int64_t) {
      kernels.sophia_hessian[type_of(grads->items[c.tensor])](
          at(*grads, c), at<float>(*h, c), c.count, keep, take, grad_scale);
    });
  });
}

OARLOCK_API std::int32_t oarlock_optim_schedule_free_adamw(
    const oarlock_tensors* params, const oarlock_tensors* grads, const oarlock_tensors* z,
    const oarlock_tensors* v, const oarlock_schedule_free_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_step(*params, *grads, {z, v});
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*z, Access::write},
                   {*v, Access::write}});
    const ScheduleFreeScalars s = scalars(*o);
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
    for_chunks(Plan(*params), threads, [&](const Chunk& c, std::int64_t) {
      kernels.schedule_free[types_of(*params, *grads, c.tensor)](
          at(*params, c), at(*grads, c), at<float>(*z, c), at<float>(*v, c), c.count, s,
          rounding(o->rounding, c));
    });
  });
}

OARLOCK_API std::int32_t oarlock_optim_squared_norm(const oarlock_tensors* tensors, double* sum,
                                                    std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check_dtype(*tensors, {kFloat32, kBfloat16});
    check_memory(*tensors, Access::read);
    const Kernels& kernels = OARLOCK_KERNELS(optim_kernels);
    const Plan plan(*tensors);
    std::vector<double> parts(plan.size());
    for_chunks(plan, threads, [&](const Chunk& c, std::int64_t i) {
      parts[i] = kernels.squared_norm[type_of(tensors->items[c.tensor])](at(*tensors, c), c.count);
    });
    double total = 0;
    for (double part : parts) total += part;
    *sum = total;
  });
}
