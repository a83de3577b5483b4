// What the entry points of the CPU and of CUDA do with their arguments before any kernel runs.
#pragma once

#include <initializer_list>

#include "core/tensors.h"
#include "optim/kernels.h"
#include "optim/options.h"
#include "optim/plan.h"

namespace oarlock::optim {

// Parameters, gradients and float32 state of a step: types, shapes, memory on `device`.
void check_step(const oarlock_tensors& params, const oarlock_tensors& grads,
                std::initializer_list<const oarlock_tensors*> states, Device device = {});

Types types_of(const oarlock_tensors& params, const oarlock_tensors& grads, std::int64_t tensor);

AdamwScalars scalars(const oarlock_adamw_options& o);
LionScalars scalars(const oarlock_lion_options& o);
SgdScalars scalars(const oarlock_sgd_options& o);
LambScalars scalars(const oarlock_lamb_options& o);
SophiaScalars scalars(const oarlock_sophia_options& o);
ScheduleFreeScalars scalars(const oarlock_schedule_free_options& o);
LarsScalars scalars(const oarlock_lars_options& o);
MarsScalars scalars(const oarlock_mars_options& o);

// Rounding of a chunk of a tensor.
Rounding rounding(const oarlock_rounding& options, const Chunk& chunk);

}  // namespace oarlock::optim
