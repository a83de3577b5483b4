// What a decoder does to single rows between its products.

#include "attention/vector.h"
#include "decoder/kernels.h"
#include "lowp/activations.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using namespace decoder;

// Calls body(register i) for whole registers, then tail(i) for single numbers.
template <typename Body, typename Tail>
OARLOCK_ALWAYS_INLINE void each(int64_t n, const Body& body, const Tail& tail) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i);
  for (; i < n; ++i) tail(i);
}

// Sum of (x - from)^2.
float squares(const float* x, int64_t n, float from) {
  floats sums{};
  float rest = 0;
  each(
      n,
      [&](int64_t i) {
        const floats y = load_floats(x + i) - all(from);
        sums = multiply_add(y, y, sums);
      },
      [&](int64_t i) { rest += (x[i] - from) * (x[i] - from); });
  return sum_of(sums) + rest;
}

float total(const float* x, int64_t n) {
  floats sums{};
  float rest = 0;
  each(n, [&](int64_t i) { sums += load_floats(x + i); }, [&](int64_t i) { rest += x[i]; });
  return sum_of(sums) + rest;
}

void rms_norm(const float* x, int64_t n, const float* weight, float epsilon, float* out) {
  const float by = 1.0f / square_root(squares(x, n, 0.0f) / float(n) + epsilon);
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * by * weight[i];
}

void layer_norm(const float* x, int64_t n, const float* weight, const float* bias, float epsilon,
                float* out) {
  const float mean = total(x, n) / float(n);
  const float by = 1.0f / square_root(squares(x, n, mean) / float(n) + epsilon);
  if (bias == nullptr)
    for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - mean) * by * weight[i];
  else
    for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - mean) * by * weight[i] + bias[i];
}

void rotate(float* x, int64_t heads, int64_t head_size, int64_t rotary, bool halves,
            const float* cos, const float* sin) {
  const int64_t pairs = rotary / 2, apart = halves ? pairs : 1, step = halves ? 1 : 2;
  for (int64_t head = 0; head < heads; ++head, x += head_size)
    for (int64_t i = 0; i < pairs; ++i) {
      const float a = x[i * step], b = x[i * step + apart];
      x[i * step] = a * cos[i] - b * sin[i];
      x[i * step + apart] = a * sin[i] + b * cos[i];
    }
}

void swiglu(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = silu(x[i]) * x[n + i];
}

// x times the logistic function of 2 sqrt(2 / pi) (x + 0.044715 x^3): the tanh form of GPT-2.
void gelu_tanh(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    const float inner = 1.5957691f * (x[i] + 0.044715f * (x[i] * x[i] * x[i]));
    const float magnitude = from_bits(to_bits(inner) & 0x7fffffffu);
    const float e = exponential(-magnitude), below = inner < 0.0f ? e : 1.0f;
    out[i] = x[i] * (below / (1.0f + e));
  }
}

void gelu_exact(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = gelu(x[i]);
}

void relu_all(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = relu(x[i]);
}

void scale(const float* x, int64_t n, float by, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * by;
}

void add_scaled(const float* x, int64_t n, float by, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] += x[i] * by;
}

void softmax(float* x, int64_t n) {
  float most = x[0], sum = 0;
  for (int64_t i = 1; i < n; ++i) most = x[i] > most ? x[i] : most;
  for (int64_t i = 0; i < n; ++i) {
    x[i] = exponential(x[i] - most);
    sum += x[i];
  }
  for (int64_t i = 0; i < n; ++i) x[i] /= sum;
}

}  // namespace

extern const decoder::StepKernels decoder_step_kernels;
const decoder::StepKernels decoder_step_kernels = {
    rms_norm, layer_norm, rotate, {swiglu, gelu_tanh, gelu_exact, relu_all}, scale, add_scaled, softmax,
};

}  // namespace oarlock::OARLOCK_PATH
