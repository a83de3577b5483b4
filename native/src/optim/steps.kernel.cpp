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
void sophia(void* params, const void* grads, float* __restrict m, const float* __restrict h,
            int64_t n, const SophiaScalars& scalars, const Rounding& rounding) {
  P* __restrict p = static_cast<P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const SophiaScalars s = scalars;
  with_store(p, rounding, [&](const auto store) {
    for (int64_t i = 0; i < n; ++i)
      store(p, i, sophia_rule(load(p, i), load(g, i), m[i], h[i], s));
  });
}

template <typename G>
void sophia_hessian(const void* grads, float* __restrict h, int64_t n, float keep, float take,
                    float grad_scale) {
  const G* __restrict g = static_cast<const G*>(grads);
  for (int64_t i = 0; i < n; ++i) {
    const float x = load(g, i) * grad_scale;
    h[i] = keep * h[i] + take * (x * x);
  }
}

template <typename P, typename G>
void schedule_free(void* params, const void* grads, float* __restrict z, float* __restrict v,
                   int64_t n, const ScheduleFreeScalars& scalars, const Rounding& rounding) {
  P* __restrict y = static_cast<P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const ScheduleFreeScalars s = scalars;
  with_store(y, rounding, [&](const auto store) {
    for (int64_t i = 0; i < n; ++i)
      store(y, i, schedule_free_rule(load(y, i), load(g, i), z[i], v[i], s));
  });
}

}  // namespace

extern const Kernels optim_kernels;
const Kernels optim_kernels = {
    {adamw<float, float>, adamw<bfloat16, float>, adamw<bfloat16, bfloat16>},
    {lion<float, float>, lion<bfloat16, float>, lion<bfloat16, bfloat16>},
    {sgd<float, float>, sgd<bfloat16, float>, sgd<bfloat16, bfloat16>},
    {sophia<float, float>, sophia<bfloat16, float>, sophia<bfloat16, bfloat16>},
    {sophia_hessian<float>, sophia_hessian<bfloat16>},
    {schedule_free<float, float>, schedule_free<bfloat16, float>,
     schedule_free<bfloat16, bfloat16>},
    {squared_norm<float>, squared_norm<bfloat16>},
};

}  // namespace oarlock::OARLOCK_PATH
