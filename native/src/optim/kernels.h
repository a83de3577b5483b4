// The kernels of optimisers: what a code path provides.
//
// Sizes are elements; pointers to parameters and gradients have the types that `Types` names.
#pragma once

#include <stdint.h>

namespace oarlock::optim {

// Types of parameter and gradient.
enum Types : int32_t { kF32F32 = 0, kBf16F32 = 1, kBf16Bf16 = 2, kTypes = 3 };

// How bfloat16 parameters are rounded. Element `first + i` of a tensor takes 16 bits of a hash of
// its index and the key, so the result depends on nothing else.
struct Rounding {
  bool stochastic;
  uint32_t key0, key1;
  uint32_t first;  // low 32 bits of the index of the first element
};

struct AdamwScalars {
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float decay;          // 1 - lr * weight_decay
  float step_size;      // lr / (1 - beta1^t)
  float v_scale;        // 1 / sqrt(1 - beta2^t)
  float eps, grad_scale;
};

struct LionScalars {
  float beta1, one_minus_beta1, beta2, one_minus_beta2, decay, lr, grad_scale;
};

struct SgdScalars {
  float momentum, one_minus_dampening;
  float grad_part, buffer_part;  // update = grad_part * g + buffer_part * buffer
  float decay, lr, grad_scale;
};

struct LambScalars {
  float beta1, one_minus_beta1, beta2, one_minus_beta2;
  float m_scale, v_scale;  // 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t)
  float eps, weight_decay, grad_scale;
};

struct SophiaScalars {
  float beta1, one_minus_beta1, gamma, eps, decay, lr, grad_scale;
};

struct ScheduleFreeScalars {
  float beta2, one_minus_beta2;
  float v_scale;   // 1 / sqrt(1 - beta2^t)
  float eps, weight_decay;
  float average;   // weight of z in the average
  float y_step;    // lr * (beta1 * (1 - average) - 1)
  float lr, grad_scale;
};

struct LarsScalars {
  float momentum, weight_decay, grad_scale;
  float step_part, buffer_part;  // update = step_part * step + buffer_part * buffer
};

struct MarsScalars {
  float correction;  // gamma * beta1 / (1 - beta1); 0: the previous gradient is not looked at
  AdamwScalars adamw;
};

struct AdafactorScalars {
  float decay;      // 1 - lr * weight_decay
  float step_size;  // lr, times the size of the weights, over the clipping of the update
};

// Element by element (steps.kernel.cpp).
struct Kernels {
  void (*adamw[kTypes])(void* p, const void* g, float* m, float* v, int64_t n,
                        const AdamwScalars& s, const Rounding& r);
  void (*lion[kTypes])(void* p, const void* g, float* m, int64_t n, const LionScalars& s,
                       const Rounding& r);
  // buffer may be null: no momentum.
  void (*sgd[kTypes])(void* p, const void* g, float* buffer, int64_t n, const SgdScalars& s,
                      const Rounding& r);
  void (*sophia[kTypes])(void* p, const void* g, float* m, const float* h, int64_t n,
                         const SophiaScalars& s, const Rounding& r);
  // h = keep * h + take * (grad_scale * g)^2. Type: float32 or bfloat16.
  void (*sophia_hessian[2])(const void* g, float* h, int64_t n, float keep, float take,
                            float grad_scale);
  void (*schedule_free[kTypes])(void* y, const void* g, float* z, float* v, int64_t n,
                                const ScheduleFreeScalars& s, const Rounding& r);
  // Sum of squares in float64, in an order that depends on n only. Type: float32 or bfloat16.
  double (*squared_norm[2])(const void* x, int64_t n);
};

// Steps scaled by norms of whole tensors (layerwise.kernel.cpp).
struct LayerwiseKernels {
  // Updates m and v; norms[0] and norms[1] get the sums of squares of the parameter and of the
  // direction.
  void (*lamb_moments[kTypes])(const void* p, const void* g, float* m, float* v, int64_t n,
                               const LambScalars& s, double* norms);
  // p -= step_size * direction(p, m, v). Type kF32F32 or kBf16F32.
  void (*lamb_apply[kTypes])(void* p, const float* m, const float* v, int64_t n,
                             const LambScalars& s, float step_size, const Rounding& r);
  // buffer = momentum * buffer + step_size * (g + weight_decay * p), and p by the buffer.
  void (*lars[kTypes])(void* p, const void* g, float* buffer, int64_t n, const LarsScalars& s,
                       float step_size, const Rounding& r);
  // Sum of squares of the corrected gradient. Type of the gradient: float32 or bfloat16.
  double (*mars_squares[2])(const void* g, const float* previous, int64_t n, const MarsScalars& s);
  // AdamW with clip * the corrected gradient; previous = grad_scale * g.
  void (*mars[kTypes])(void* p, const void* g, float* previous, float* m, float* v, int64_t n,
                       const MarsScalars& s, float clip, const Rounding& r);
};

// Second moments shared by rows, columns or blocks (factored.kernel.cpp).
struct FactoredKernels {
  // One row: returns the sum of squares of (scale * x) and adds each square to columns[i].
  double (*row_squares[2])(const void* x, int64_t n, float scale, double* columns);
  // Part of a matrix that begins in column `column` of a row whose factor is rows[0]. The update is
  // g * rows[i] * columns[j]; returns the sum of its squares. Type of the gradient.
  double (*adafactor_squares[2])(const void* g, int64_t n, int64_t column, int64_t width,
                                 const float* rows, const float* columns);
  void (*adafactor[kTypes])(void* p, const void* g, int64_t n, int64_t column, int64_t width,
                            const float* rows, const float* columns, const AdafactorScalars& s,
                            const Rounding& r);
  // Elements from position `offset` of a block on: sums[k] gets the sum of squares of those in the
  // k-th of the blocks they belong to. Type of the gradient.
  void (*block_squares[2])(const void* g, int64_t n, int64_t offset, int64_t block, double* sums);
  // AdamW with the k-th denominator for the k-th block.
  void (*adam_mini[kTypes])(void* p, const void* g, float* m, int64_t n, int64_t offset,
                            int64_t block, const float* denominators, const AdamwScalars& s,
                            const Rounding& r);
};

}  // namespace oarlock::optim
