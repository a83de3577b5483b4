// The update rules, element by element: one text for every code path and for CUDA.
//
// No operation is contracted to a fused one (see the compile flags), so all give the same bits.
#pragma once

#include "core/kernel.h"
#include "optim/kernels.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using namespace optim;

// Each returns the new parameter and changes the state.

OARLOCK_INLINE float adamw_rule(float p, float g, float& m, float& v, const AdamwScalars& s) {
  g = g * s.grad_scale;
  m = s.beta1 * m + s.one_minus_beta1 * g;
  v = s.beta2 * v + s.one_minus_beta2 * (g * g);
  const float denominator = square_root(v) * s.v_scale + s.eps;
  return p * s.decay - s.step_size * (m / denominator);
}

// The denominator is that of the element's block.
OARLOCK_INLINE float adam_mini_rule(float p, float g, float& m, float denominator,
                                    const AdamwScalars& s) {
  m = s.beta1 * m + s.one_minus_beta1 * (g * s.grad_scale);
  return p * s.decay - s.step_size * (m / denominator);
}

// The gradient, already scaled, with MARS's correction by the change since the previous one.
OARLOCK_INLINE float mars_gradient(float g, float previous, const MarsScalars& s) {
  return s.correction == 0.0f ? g : g + s.correction * (g - previous);
}

OARLOCK_INLINE float mars_rule(float p, float g, float& previous, float& m, float& v,
                               const MarsScalars& s, float clip) {
  g = g * s.adamw.grad_scale;
  const float corrected = clip * mars_gradient(g, previous, s);
  previous = g;
  m = s.adamw.beta1 * m + s.adamw.one_minus_beta1 * corrected;
  v = s.adamw.beta2 * v + s.adamw.one_minus_beta2 * (corrected * corrected);
  const float denominator = square_root(v) * s.adamw.v_scale + s.adamw.eps;
  return p * s.adamw.decay - s.adamw.step_size * (m / denominator);
}

OARLOCK_INLINE float lars_rule(float p, float g, float& buffer, const LarsScalars& s,
                               float step_size) {
  const float step = step_size * (g * s.grad_scale + s.weight_decay * p);
  buffer = s.momentum * buffer + step;
  return p - (s.step_part * step + s.buffer_part * buffer);
}

OARLOCK_INLINE float lion_rule(float p, float g, float& m, const LionScalars& s) {
  g = g * s.grad_scale;
  const float c = s.beta1 * m + s.one_minus_beta1 * g;
  m = s.beta2 * m + s.one_minus_beta2 * g;
  // sign(c), with sign(NaN) = NaN so that a broken gradient shows.
  const float sign = c > 0.0f ? 1.0f : c < 0.0f ? -1.0f : c == 0.0f ? 0.0f : c;
  return p * s.decay - s.lr * sign;
}

OARLOCK_INLINE float sgd_rule(float p, float g, const SgdScalars& s) {
  return p * s.decay - s.lr * (g * s.grad_scale);
}

OARLOCK_INLINE float momentum_rule(float p, float g, float& buffer, const SgdScalars& s) {
  g = g * s.grad_scale;
  buffer = s.momentum * buffer + s.one_minus_dampening * g;
  return p * s.decay - s.lr * (s.grad_part * g + s.buffer_part * buffer);
}

// Adam's moments; returns LAMB's direction.
OARLOCK_INLINE float lamb_direction(float p, float m, float v, const LambScalars& s) {
  const float denominator = square_root(v) * s.v_scale + s.eps;
  return (m * s.m_scale) / denominator + s.weight_decay * p;
}

OARLOCK_INLINE void lamb_moments_rule(float g, float& m, float& v, const LambScalars& s) {
  g = g * s.grad_scale;
  m = s.beta1 * m + s.one_minus_beta1 * g;
  v = s.beta2 * v + s.one_minus_beta2 * (g * g);
}

// A NaN in m or h passes both comparisons and shows in the parameter.
OARLOCK_INLINE float sophia_rule(float p, float g, float& m, float h, const SophiaScalars& s) {
  g = g * s.grad_scale;
  m = s.beta1 * m + s.one_minus_beta1 * g;
  const float curvature = s.gamma * h;
  const float ratio = m / (curvature < s.eps ? s.eps : curvature);
  const float above = ratio < -1.0f ? -1.0f : ratio;
  return p * s.decay - s.lr * (above > 1.0f ? 1.0f : above);
}

OARLOCK_INLINE float schedule_free_rule(float y, float g, float& z, float& v,
                                        const ScheduleFreeScalars& s) {
  g = g * s.grad_scale;
  v = s.beta2 * v + s.one_minus_beta2 * (g * g);
  const float update = g / (square_root(v) * s.v_scale + s.eps) + s.weight_decay * y;
  const float next = y + s.average * (z - y) + s.y_step * update;
  z = z - s.lr * update;
  return next;
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
