// Element-wise update rules. No operation is contracted to a fused one, so every code path gives
// the same bits.

#include "optim/rounding.h"
#include "optim/sums.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using namespace optim;

template <typename P, typename G>
void adamw(void* params, const void* grads, float* __restrict m, float* __restrict v, int64_t n,
           const AdamwScalars& scalars, const Rounding& rounding) {
  P* __restrict p = static_cast<P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const AdamwScalars s = scalars;
  with_store(p, rounding, [&](const auto store) {
    for (int64_t i = 0; i < n; ++i) {
      const float grad = load(g, i) * s.grad_scale;
      const float mi = s.beta1 * m[i] + s.one_minus_beta1 * grad;
      const float vi = s.beta2 * v[i] + s.one_minus_beta2 * (grad * grad);
      m[i] = mi;
      v[i] = vi;
      const float denominator = __builtin_sqrtf(vi) * s.v_scale + s.eps;
      store(p, i, load(p, i) * s.decay - s.step_size * (mi / denominator));
    }
  });
}

template <typename P, typename G>
void lion(void* params, const void* grads, float* __restrict m, int64_t n,
          const LionScalars& scalars, const Rounding& rounding) {
  P* __restrict p = static_cast<P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const LionScalars s = scalars;
  with_store(p, rounding, [&](const auto store) {
    for (int64_t i = 0; i < n; ++i) {
      const float grad = load(g, i) * s.grad_scale;
      const float c = s.beta1 * m[i] + s.one_minus_beta1 * grad;
      m[i] = s.beta2 * m[i] + s.one_minus_beta2 * grad;
      // sign(c), with sign(NaN) = NaN so that a broken gradient shows.
      const float sign = c > 0.0f ? 1.0f : c < 0.0f ? -1.0f : c == 0.0f ? 0.0f : c;
      store(p, i, load(p, i) * s.decay - s.lr * sign);
    }
  });
}

template <typename P, typename G>
void sgd(void* params, const void* grads, float* __restrict buffer, int64_t n,
         const SgdScalars& scalars, const Rounding& rounding) {
  P* __restrict p = static_cast<P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const SgdScalars s = scalars;
  with_store(p, rounding, [&](const auto store) {
    if (buffer == nullptr) {
      for (int64_t i = 0; i < n; ++i)
        store(p, i, load(p, i) * s.decay - s.lr * (load(g, i) * s.grad_scale));
      return;
    }
    // update = grad_part * grad + buffer_part * buffer
    const float grad_part = s.nesterov ? 1.0f : 0.0f;
    const float buffer_part = s.nesterov ? s.momentum : 1.0f;
    for (int64_t i = 0; i < n; ++i) {
      const float grad = load(g, i) * s.grad_scale;
      const float b = s.momentum * buffer[i] + s.one_minus_dampening * grad;
      buffer[i] = b;
      store(p, i, load(p, i) * s.decay - s.lr * (grad_part * grad + buffer_part * b));
    }
  });
}

template <typename P>
inline float lamb_direction(const P* p, int64_t i, float m, float v, const LambScalars& s) {
  const float denominator = __builtin_sqrtf(v) * s.v_scale + s.eps;
  return (m * s.m_scale) / denominator + s.weight_decay * load(p, i);
}

template <typename P, typename G>
void lamb_moments(const void* params, const void* grads, float* __restrict m, float* __restrict v,
                  int64_t n, const LambScalars& scalars, double* norms) {
  const P* __restrict p = static_cast<const P*>(params);
  const G* __restrict g = static_cast<const G*>(grads);
  const LambScalars s = scalars;
  LaneSum weights, directions;
  const auto element = [&](int64_t i, int lane) {
    const float grad = load(g, i) * s.grad_scale;
    const float mi = s.beta1 * m[i] + s.one_minus_beta1 * grad;
    const float vi = s.beta2 * v[i] + s.one_minus_beta2 * (grad * grad);
    m[i] = mi;
    v[i] = vi;
    const double weight = load(p, i), direction = lamb_direction(p, i, mi, vi, s);
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
      store(p, i, load(p, i) - step_size * lamb_direction(p, i, m[i], v[i], s));
  });
}

template <typename T>
double squared_norm(const void* data, int64_t n) {
  const T* __restrict x = static_cast<const T*>(data);
  LaneSum sum;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) {
      const double value = load(x, i + lane);
      sum.lanes[lane] += value * value;
    }
  for (int lane = 0; i < n; ++i, ++lane) {
    const double value = load(x, i);
    sum.lanes[lane] += value * value;
  }
  return sum.total();
}

template <typename T>
double row_squares(const void* data, int64_t n, float scale, double* __restrict columns) {
  const T* __restrict x = static_cast<const T*>(data);
  LaneSum sum;
  const auto element = [&](int64_t i, int lane) {
    const double value = load(x, i) * scale;
    columns[i] += value * value;
    sum.lanes[lane] += value * value;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) element(i + lane, lane);
  for (int lane = 0; i < n; ++i, ++lane) element(i, lane);
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
