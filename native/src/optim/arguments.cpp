#include "optim/arguments.h"

#include <cmath>

#include "core/error.h"
#include "core/random.h"

namespace oarlock::optim {
namespace {

float f(double x) { return static_cast<float>(x); }

// 1 - beta^step
double correction(double beta, std::int64_t step) {
  return 1 - std::pow(beta, static_cast<double>(step));
}

}  // namespace

void check_step(const oarlock_tensors& params, const oarlock_tensors& grads,
                std::initializer_list<const oarlock_tensors*> states, Device device) {
  check_dtype(params, {kFloat32, kBfloat16});
  check_memory(params, Access::write, device);
  check_shapes(grads, params);
  check_memory(grads, Access::read, device);
  for (std::int64_t i = 0; i < grads.count; ++i) {
    const std::int32_t own = params.items[i].dtype, given = grads.items[i].dtype;
    if (given == kFloat32 || given == own) continue;
    const std::string right = own == kFloat32 ? "float32" : "float32 or bfloat16";
    throw BadArgument(item_name(grads, i) + " is " + dtype_text(given) + " for a parameter of " +
                      dtype_text(own) + "; it must be " + right + "; cast it");
  }
  for (const oarlock_tensors* state : states) {
    check_shapes(*state, params);
    check_dtype(*state, {kFloat32});
    check_memory(*state, Access::write, device);
  }
}

Types types_of(const oarlock_tensors& params, const oarlock_tensors& grads, std::int64_t tensor) {
  if (params.items[tensor].dtype == kFloat32) return kF32F32;
  return grads.items[tensor].dtype == kFloat32 ? kBf16F32 : kBf16Bf16;
}

AdamwScalars scalars(const oarlock_adamw_options& o) {
  AdamwScalars s;
  s.beta1 = f(o.beta1);
  s.one_minus_beta1 = f(1 - o.beta1);
  s.beta2 = f(o.beta2);
  s.one_minus_beta2 = f(1 - o.beta2);
  s.decay = f(1 - o.lr * o.weight_decay);
  s.step_size = f(o.lr / correction(o.beta1, o.step));
  s.v_scale = f(1 / std::sqrt(correction(o.beta2, o.step)));
  s.eps = f(o.eps);
  s.grad_scale = f(o.grad_scale);
  return s;
}

LionScalars scalars(const oarlock_lion_options& o) {
  LionScalars s;
  s.beta1 = f(o.beta1);
  s.one_minus_beta1 = f(1 - o.beta1);
  s.beta2 = f(o.beta2);
  s.one_minus_beta2 = f(1 - o.beta2);
  s.decay = f(1 - o.lr * o.weight_decay);
  s.lr = f(o.lr);
  s.grad_scale = f(o.grad_scale);
  return s;
}

SgdScalars scalars(const oarlock_sgd_options& o) {
  SgdScalars s;
  s.momentum = f(o.momentum);
  s.one_minus_dampening = f(1 - o.dampening);
  s.grad_part = o.nesterov ? 1.0f : 0.0f;
  s.buffer_part = o.nesterov ? f(o.momentum) : 1.0f;
  s.decay = f(1 - o.lr * o.weight_decay);
  s.lr = f(o.lr);
  s.grad_scale = f(o.grad_scale);
  return s;
}

LambScalars scalars(const oarlock_lamb_options& o) {
  LambScalars s;
  s.beta1 = f(o.beta1);
  s.one_minus_beta1 = f(1 - o.beta1);
  s.beta2 = f(o.beta2);
  s.one_minus_beta2 = f(1 - o.beta2);
  s.m_scale = f(1 / correction(o.beta1, o.step));
  s.v_scale = f(1 / std::sqrt(correction(o.beta2, o.step)));
  s.eps = f(o.eps);
  s.weight_decay = f(o.weight_decay);
  s.grad_scale = f(o.grad_scale);
  return s;
}

SophiaScalars scalars(const oarlock_sophia_options& o) {
  SophiaScalars s;
  s.beta1 = f(o.beta1);
  s.one_minus_beta1 = f(1 - o.beta1);
  s.gamma = f(o.gamma);
  s.eps = f(o.eps);
  s.decay = f(1 - o.lr * o.weight_decay);
  s.lr = f(o.lr);
  s.grad_scale = f(o.grad_scale);
  return s;
}

ScheduleFreeScalars scalars(const oarlock_schedule_free_options& o) {
  ScheduleFreeScalars s;
  s.beta2 = f(o.beta2);
  s.one_minus_beta2 = f(1 - o.beta2);
  s.v_scale = f(1 / std::sqrt(correction(o.beta2, o.step)));
  s.eps = f(o.eps);
  s.weight_decay = f(o.weight_decay);
  s.average = f(o.average_weight);
  s.y_step = f(o.lr * (o.beta1 * (1 - o.average_weight) - 1));
  s.lr = f(o.lr);
  s.grad_scale = f(o.grad_scale);
  return s;
}

LarsScalars scalars(const oarlock_lars_options& o) {
  LarsScalars s;
  s.momentum = f(o.momentum);
  s.weight_decay = f(o.weight_decay);
  s.grad_scale = f(o.grad_scale);
  s.step_part = o.nesterov ? 1.0f : 0.0f;
  s.buffer_part = o.nesterov ? f(o.momentum) : 1.0f;
  return s;
}

MarsScalars scalars(const oarlock_mars_options& o) {
  MarsScalars s;
  s.correction = o.step == 1 ? 0.0f : f(o.gamma * o.beta1 / (1 - o.beta1));
  s.adamw = scalars(oarlock_adamw_options{o.lr, o.beta1, o.beta2, o.eps, o.weight_decay,
                                          o.grad_scale, o.step, o.rounding});
  return s;
}

Rounding rounding(const oarlock_rounding& options, const Chunk& chunk) {
  const auto begin = static_cast<std::uint64_t>(chunk.begin);
  const std::uint64_t tensor = mix(options.seed) ^ static_cast<std::uint64_t>(chunk.tensor);
  const std::uint64_t key = mix(mix(tensor) ^ begin >> 32);
  return {options.stochastic != 0, static_cast<std::uint32_t>(key),
          static_cast<std::uint32_t>(key >> 32), static_cast<std::uint32_t>(begin)};
}

}  // namespace oarlock::optim
