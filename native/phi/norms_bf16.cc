// Paddle's `layer_norm` and `rms_norm` and their gradients for bfloat16 on the CPU.
//
// `rms_norm` for float32 too, since Paddle has it only on GPUs. Scale and bias may be float32 where
// x is bfloat16. With r = 1 / sqrt(variance + epsilon), z = (x - mean) r and g = scale dy:
//   y = scale z + bias,  dx = r (g - mean(g) - z mean(g z)),  dscale = sum dy z,  dbias = sum dy;
// rms_norm leaves out both means of single factors.

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/lanes.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "paddle/phi/core/kernel_registry.h"

namespace oarlock {
namespace {

using Optional = paddle::optional<phi::DenseTensor>;
using Floats = std::vector<float>;

constexpr std::int64_t kRowsPerSum = 64;  // rows whose gradients of scale and bias one thread adds

void store(float value, float* to) { *to = value; }
void store(float value, Bf16* to) { *to = narrow(value); }

std::int64_t rows_of_grain(std::int64_t cols) {
  return std::max<std::int64_t>(1, (1 << 14) / std::max<std::int64_t>(1, cols));
}

template <typename T>
OARLOCK_CLONES void load(const T* from, float* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = widen(from[i]);
}

OARLOCK_CLONES float mean_of(const float* x, std::int64_t n) {
  return sum_of(n, [&](std::int64_t i) { return x[i]; }) / static_cast<float>(n);
}

OARLOCK_CLONES float variance_of(const float* x, float mean, std::int64_t n) {
  const auto square = [&](std::int64_t i) { return (x[i] - mean) * (x[i] - mean); };
  return sum_of(n, square) / static_cast<float>(n);
}

template <typename T>
OARLOCK_CLONES void write_row(const float* x, float mean, float inverse, const float* scale,
                              const float* bias, T* y, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) store((x[i] - mean) * inverse * scale[i] + bias[i], y + i);
}

// x becomes z, dscale and dbias grow, dx is written.
template <typename T>
OARLOCK_CLONES void row_gradient(float* x, const float* dy, float mean, float inverse,
                                 bool centred, const float* scale, T* dx, float* dscale,
                                 float* dbias, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = (x[i] - mean) * inverse;
  for (std::int64_t i = 0; i < n; ++i) dscale[i] += dy[i] * x[i];
  for (std::int64_t i = 0; i < n; ++i) dbias[i] += dy[i];
  if (dx == nullptr) return;
  const auto g = [&](std::int64_t i) { return scale[i] * dy[i]; };
  const float mean_g = centred ? sum_of(n, g) / static_cast<float>(n) : 0.f;
  const auto gz = [&](std::int64_t i) { return scale[i] * dy[i] * x[i]; };
  const float mean_gz = sum_of(n, gz) / static_cast<float>(n);
  for (std::int64_t i = 0; i < n; ++i)
    store(inverse * (scale[i] * dy[i] - mean_g - x[i] * mean_gz), dx + i);
}

template <typename T>
T* data_of(phi::DenseTensor* tensor) {
  return tensor == nullptr ? nullptr : reinterpret_cast<T*>(tensor->data());
}

template <typename T>
const T* data_of(const phi::DenseTensor& tensor) {
  return reinterpret_cast<const T*>(tensor.data());
}

// The n elements of a float32 or bfloat16 tensor, or n times `otherwise`.
Floats floats_of(const char* kernel, const Optional& tensor, std::int64_t n, float otherwise) {
  Floats result(n, otherwise);
  if (!tensor) return result;
  PADDLE_ENFORCE_EQ(tensor->numel(), n,
                    common::errors::InvalidArgument(
                        "%s: scale or bias has %d elements, the normalised axes have %d.", kernel,
                        tensor->numel(), n));
  if (tensor->dtype() == phi::DataType::FLOAT32) {
    std::copy_n(tensor->data<float>(), n, result.data());
  } else {
    load(bits(*tensor), result.data(), n);
  }
  return result;
}

// Writes a gradient in the type that Paddle has chosen for it: that of the parameter.
void write(const phi::CPUContext& context, const Floats& from, const Optional& parameter,
           phi::DenseTensor* to) {
  if (to == nullptr) return;
  if (parameter && parameter->dtype() == phi::DataType::FLOAT32) {
    std::copy(from.begin(), from.end(), context.Alloc<float>(to));
  } else {
    narrow_all(from.data(), allocate<phi::bfloat16>(context, to), from.size());
  }
}

struct Norm {
  const char* kernel;
  std::int64_t rows, cols;
  float epsilon;
  bool centred;

  Norm(const char* kernel, const phi::DenseTensor& x, std::int64_t axes_before, double epsilon,
       bool centred)
      : kernel(kernel), rows(1), cols(1), epsilon(static_cast<float>(epsilon)), centred(centred) {
    const auto dims = x.dims();
    for (int i = 0; i < dims.size(); ++i) (i < axes_before ? rows : cols) *= dims[i];
  }

  // Either of `variances` and `inverses` may be null.
  template <typename T>
  void forward(const T* x, const Floats& scale, const Floats& bias, T* y, float* means,
               float* variances, float* inverses) const {
    parallel_ranges(rows, rows_of_grain(cols), [&](std::int64_t begin, std::int64_t end) {
      Floats row(cols);
      for (std::int64_t r = begin; r < end; ++r) {
        load(x + r * cols, row.data(), cols);
        const float mean = centred ? mean_of(row.data(), cols) : 0.f;
        const float variance = variance_of(row.data(), mean, cols);
        const float inverse = 1.f / std::sqrt(variance + epsilon);
        if (means != nullptr) means[r] = mean;
        if (variances != nullptr) variances[r] = variance;
        if (inverses != nullptr) inverses[r] = inverse;
        write_row(row.data(), mean, inverse, scale.data(), bias.data(), y + r * cols, cols);
      }
    });
  }

  // `means` may be null. dscale and dbias are summed in an order that does not depend on threads.
  template <typename T>
  void backward(const T* x, const T* dy, const float* means, const Floats& inverses,
                const Floats& scale, T* dx, Floats* dscale, Floats* dbias) const {
    const std::int64_t blocks = (rows + kRowsPerSum - 1) / kRowsPerSum;
    Floats partial(blocks * 2 * cols);
    parallel_ranges(blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      Floats row(cols), gradient(cols);
      for (std::int64_t b = begin; b < end; ++b) {
        float* const sums = partial.data() + b * 2 * cols;
        for (std::int64_t r = b * kRowsPerSum; r < std::min(rows, (b + 1) * kRowsPerSum); ++r) {
          load(x + r * cols, row.data(), cols);
          load(dy + r * cols, gradient.data(), cols);
          row_gradient(row.data(), gradient.data(), means != nullptr ? means[r] : 0.f, inverses[r],
                       centred, scale.data(), dx != nullptr ? dx + r * cols : nullptr, sums,
                       sums + cols, cols);
        }
      }
    });
    dscale->assign(cols, 0.f);
    dbias->assign(cols, 0.f);
    for (std::int64_t b = 0; b < blocks; ++b)
      for (std::int64_t i = 0; i < cols; ++i) {
        (*dscale)[i] += partial[b * 2 * cols + i];
        (*dbias)[i] += partial[(b * 2 + 1) * cols + i];
      }
  }
};

template <typename T>
struct Stored {
  using type = T;
};
template <>
struct Stored<phi::bfloat16> {
  using type = Bf16;
};

}  // namespace

template <typename T, typename Context>
void LayerNorm(const Context& context, const phi::DenseTensor& x, const Optional& scale,
               const Optional& bias, float epsilon, int begin_norm_axis, phi::DenseTensor* y,
               phi::DenseTensor* mean, phi::DenseTensor* variance) {
  const Norm norm("layer_norm", x, begin_norm_axis, epsilon, true);
  norm.forward(bits(x), floats_of(norm.kernel, scale, norm.cols, 1.f),
               floats_of(norm.kernel, bias, norm.cols, 0.f), allocate<T>(context, y),
               context.template Alloc<float>(mean), context.template Alloc<float>(variance),
               nullptr);
}

template <typename T, typename Context>
void LayerNormGrad(const Context& context, const phi::DenseTensor& x, const Optional& scale,
                   const Optional& bias, const phi::DenseTensor& mean,
                   const phi::DenseTensor& variance, const phi::DenseTensor& dy, float epsilon,
                   int begin_norm_axis, phi::DenseTensor* dx, phi::DenseTensor* dscale,
                   phi::DenseTensor* dbias) {
  const Norm norm("layer_norm_grad", x, begin_norm_axis, epsilon, true);
  Floats inverses(norm.rows), sum_scale, sum_bias;
  for (std::int64_t r = 0; r < norm.rows; ++r)
    inverses[r] = 1.f / std::sqrt(variance.data<float>()[r] + epsilon);
  norm.backward(bits(x), bits(dy), mean.data<float>(), inverses,
                floats_of(norm.kernel, scale, norm.cols, 1.f),
                dx != nullptr ? allocate<T>(context, dx) : nullptr, &sum_scale, &sum_bias);
  write(context, sum_scale, scale, dscale);
  write(context, sum_bias, bias, dbias);
}

template <typename T, typename Context>
void RmsNorm(const Context& context, const phi::DenseTensor& x, const Optional& scale,
             const std::vector<std::int64_t>& normalized_shape, double epsilon,
             phi::DenseTensor* y, phi::DenseTensor* inverse) {
  using S = typename Stored<T>::type;
  const Norm norm("rms_norm", x, x.dims().size() - normalized_shape.size(), epsilon, false);
  context.template Alloc<T>(y);
  norm.forward(data_of<S>(x), floats_of(norm.kernel, scale, norm.cols, 1.f), Floats(norm.cols),
               data_of<S>(y), nullptr, nullptr, context.template Alloc<float>(inverse));
}

template <typename T, typename Context>
void RmsNormGrad(const Context& context, const phi::DenseTensor& x, const Optional& scale,
                 const phi::DenseTensor& inverse, const phi::DenseTensor& dy,
                 const std::vector<std::int64_t>& normalized_shape, double epsilon,
                 phi::DenseTensor* dx, phi::DenseTensor* dscale) {
  using S = typename Stored<T>::type;
  const Norm norm("rms_norm_grad", x, x.dims().size() - normalized_shape.size(), epsilon, false);
  const float* const saved = inverse.data<float>();
  const Floats inverses(saved, saved + norm.rows);
  Floats sum_scale, sum_bias;
  if (dx != nullptr) context.template Alloc<T>(dx);
  norm.backward(data_of<S>(x), data_of<S>(dy), nullptr, inverses,
                floats_of(norm.kernel, scale, norm.cols, 1.f), data_of<S>(dx), &sum_scale,
                &sum_bias);
  write(context, sum_scale, scale, dscale);
}

}  // namespace oarlock

PD_REGISTER_KERNEL(layer_norm, CPU, ALL_LAYOUT, oarlock::LayerNorm, phi::bfloat16) {
  kernel->OutputAt(1).SetDataType(phi::DataType::FLOAT32);
  kernel->OutputAt(2).SetDataType(phi::DataType::FLOAT32);
}
PD_REGISTER_KERNEL(layer_norm_grad, CPU, ALL_LAYOUT, oarlock::LayerNormGrad, phi::bfloat16) {}
PD_REGISTER_KERNEL(rms_norm, CPU, ALL_LAYOUT, oarlock::RmsNorm, float, phi::bfloat16) {
  kernel->OutputAt(1).SetDataType(phi::DataType::FLOAT32);
}
PD_REGISTER_KERNEL(rms_norm_grad, CPU, ALL_LAYOUT, oarlock::RmsNormGrad, float, phi::bfloat16) {}
