// Options of the entry points, mirrored in oarlock/native/_optim_abi.py.
#pragma once

#include <cstdint>

extern "C" {

struct oarlock_rounding {
  std::uint64_t seed;
  std::int32_t stochastic;  // for bfloat16 parameters
};

struct oarlock_adamw_options {
  double lr, beta1, beta2, eps, weight_decay, grad_scale;
  std::int64_t step;  // >= 1
  oarlock_rounding rounding;
};

struct oarlock_lion_options {
  double lr, beta1, beta2, weight_decay, grad_scale;
  oarlock_rounding rounding;
};

struct oarlock_sgd_options {
  double lr, momentum, dampening, weight_decay, grad_scale;
  std::int32_t nesterov;
  oarlock_rounding rounding;
};

struct oarlock_lamb_options {
  double lr, beta1, beta2, eps, weight_decay, grad_scale;
  double max_trust_ratio;  // <= 0: no limit
  std::int64_t step;
  oarlock_rounding rounding;
};

struct oarlock_sophia_options {
  double lr, beta1, gamma, eps, weight_decay, grad_scale;
  oarlock_rounding rounding;
};

struct oarlock_sophia_hessian_options {
  double beta2, scale, grad_scale;
};

struct oarlock_schedule_free_options {
  double lr, beta1, beta2, eps, weight_decay, average_weight, grad_scale;
  std::int64_t step;
  oarlock_rounding rounding;
};

struct oarlock_lars_options {
  double lr, momentum, weight_decay, trust_coefficient, eps, grad_scale;
  std::int32_t nesterov;
  oarlock_rounding rounding;
};

struct oarlock_mars_options {
  double lr, beta1, beta2, eps, gamma, weight_decay, grad_scale;
  double max_norm;  // <= 0: no limit
  std::int64_t step;
  oarlock_rounding rounding;
};

struct oarlock_adafactor_options {
  double lr, eps_scale, weight_decay, grad_scale;
  double clip_threshold;  // <= 0: no clipping
  std::int32_t relative;
  oarlock_rounding rounding;
};

struct oarlock_row_column_options {
  double decay, eps, grad_scale;
};

}  // extern "C"
