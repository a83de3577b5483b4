// Paddle's `softmax`, `log_softmax`, `cross_entropy_with_softmax` and their gradients for bfloat16
// on the CPU. Along the last axis in one pass over memory; else by Paddle's float32 kernels.

#include <cmath>
#include <memory>
#include <vector>

#include "common/lanes.h"
#include "common/math.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "common/widened.h"

namespace oarlock {
namespace {

using Tensor = phi::DenseTensor;

struct Rows {
  std::int64_t count, size;

  explicit Rows(const Tensor& x) : size(x.dims().size() == 0 ? 1 : x.dims()[x.dims().size() - 1]) {
    count = size == 0 ? 0 : x.numel() / size;
  }

  template <typename Body>  // body(row, buffer of `size` floats)
  void for_each(const Body& body) const {
    const std::int64_t grain = (1 << 13) / (size + 1) + 1;
    parallel_ranges(count, grain, [&](std::int64_t begin, std::int64_t end) {
      const std::unique_ptr<float[]> buffer(new float[size]);
      for (std::int64_t r = begin; r < end; ++r) body(r, buffer.get());
    });
  }
};

bool is_last(int axis, const Tensor& x) { return axis == -1 || axis + 1 >= x.dims().size(); }

struct Exponentials {
  float largest, sum;
};

// buffer[i] = exp(x[i] - largest)
OARLOCK_CLONES Exponentials exponentials(const Bf16* x, float* buffer, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) buffer[i] = widen(x[i]);
  const float top = largest(buffer, n);
  for (std::int64_t i = 0; i < n; ++i) buffer[i] = fast_exp(buffer[i] - top);
  return {top, sum_of(n, [&](std::int64_t i) { return buffer[i]; })};
}

OARLOCK_CLONES void write_scaled(const float* from, float factor, Bf16* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = narrow(from[i] * factor);
}

OARLOCK_CLONES void write_shifted(const Bf16* from, float shift, Bf16* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = narrow(widen(from[i]) - shift);
}

OARLOCK_CLONES void softmax_gradient(const Bf16* out, const Bf16* dout, Bf16* dx, std::int64_t n) {
  const float dot = sum_of(n, [&](std::int64_t i) { return widen(out[i]) * widen(dout[i]); });
  for (std::int64_t i = 0; i < n; ++i) dx[i] = narrow(widen(out[i]) * (widen(dout[i]) - dot));
}

OARLOCK_CLONES void log_softmax_gradient(const Bf16* out, const Bf16* dout, Bf16* dx,
                                         std::int64_t n) {
  const float sum = sum_of(n, [&](std::int64_t i) { return widen(dout[i]); });
  for (std::int64_t i = 0; i < n; ++i)
    dx[i] = narrow(widen(dout[i]) - fast_exp(widen(out[i])) * sum);
}

// Labels of either integer type, checked.
class Labels {
 public:
  Labels(const Tensor& label, std::int64_t rows, std::int64_t classes, int ignored)
      : labels_(rows), ignored_(ignored) {
    PADDLE_ENFORCE_EQ(label.numel(), rows,
                      common::errors::InvalidArgument(
                          "cross_entropy_with_softmax: %d labels for %d rows of logits.",
                          label.numel(), rows));
    for (std::int64_t r = 0; r < rows; ++r) {
      labels_[r] = label.dtype() == phi::DataType::INT64 ? label.data<std::int64_t>()[r]
                                                         : label.data<std::int32_t>()[r];
      PADDLE_ENFORCE_EQ(
          ignored_at(r) || (labels_[r] >= 0 && labels_[r] < classes), true,
          common::errors::InvalidArgument("cross_entropy_with_softmax: label %d at row %d is "
                                          "neither in [0, %d) nor the ignored index %d.",
                                          labels_[r], r, classes, ignored));
    }
  }

  bool ignored_at(std::int64_t row) const { return labels_[row] == ignored_; }
  std::int64_t operator[](std::int64_t row) const { return labels_[row]; }

 private:
  std::vector<std::int64_t> labels_;
  std::int64_t ignored_;
};

bool has_index_labels(const Tensor& label) {
  return label.dtype() == phi::DataType::INT64 || label.dtype() == phi::DataType::INT32;
}

}  // namespace

template <typename T, typename Context>
void Softmax(const Context& context, const Tensor& x, int axis, Tensor* out) {
  if (!is_last(axis, x)) {
    compute_in_float32<const Tensor&, int, Tensor*>("softmax", context, x, axis, out);
    return;
  }
  const Rows rows(x);
  const Bf16* from = bits(x);
  Bf16* const to = allocate<T>(context, out);
  rows.for_each([&](std::int64_t r, float* buffer) {
    const auto result = exponentials(from + r * rows.size, buffer, rows.size);
    write_scaled(buffer, 1.f / result.sum, to + r * rows.size, rows.size);
  });
}

template <typename T, typename Context>
void SoftmaxGrad(const Context& context, const Tensor& out, const Tensor& dout, int axis,
                 Tensor* dx) {
  if (!is_last(axis, out)) {
    compute_in_float32<const Tensor&, const Tensor&, int, Tensor*>("softmax_grad", context, out,
                                                                   dout, axis, dx);
    return;
  }
  const Rows rows(out);
  Bf16* const to = allocate<T>(context, dx);
  rows.for_each([&](std::int64_t r, float*) {
    const std::int64_t first = r * rows.size;
    softmax_gradient(bits(out) + first, bits(dout) + first, to + first, rows.size);
  });
}

template <typename T, typename Context>
void LogSoftmax(const Context& context, const Tensor& x, int axis, Tensor* out) {
  if (!is_last(axis, x)) {
    compute_in_float32<const Tensor&, int, Tensor*>("log_softmax", context, x, axis, out);
    return;
  }
  const Rows rows(x);
  const Bf16* from = bits(x);
  Bf16* const to = allocate<T>(context, out);
  rows.for_each([&](std::int64_t r, float* buffer) {
    const std::int64_t first = r * rows.size;
    const auto result = exponentials(from + first, buffer, rows.size);
    write_shifted(from + first, result.largest + std::log(result.sum), to + first, rows.size);
  });
}

template <typename T, typename Context>
void LogSoftmaxGrad(const Context& context, const Tensor& out, const Tensor& dout, int axis,
                    Tensor* dx) {
  if (!is_last(axis, out)) {
    compute_in_float32<const Tensor&, const Tensor&, int, Tensor*>("log_softmax_grad", context,
                                                                   out, dout, axis, dx);
    return;
  }
  const Rows rows(out);
  Bf16* const to = allocate<T>(context, dx);
  rows.for_each([&](std::int64_t r, float*) {
    const std::int64_t first = r * rows.size;
    log_softmax_gradient(bits(out) + first, bits(dout) + first, to + first, rows.size);
  });
}

template <typename T, typename Context>
void CrossEntropy(const Context& context, const Tensor& logits, const Tensor& label,
                  bool soft_label, bool use_softmax, bool stable, int ignore_index, int axis,
                  Tensor* softmax, Tensor* loss) {
  if (soft_label || !use_softmax || !is_last(axis, logits) || !has_index_labels(label)) {
    softmax->set_type(phi::DataType::BFLOAT16);  // not left to Paddle: the gradient's kernel
    loss->set_type(phi::DataType::BFLOAT16);     // is chosen by it
    compute_in_float32<const Tensor&, const Tensor&, bool, bool, bool, int, int, Tensor*, Tensor*>(
        "cross_entropy_with_softmax", context, logits, label, soft_label, use_softmax, stable,
        ignore_index, axis, softmax, loss);
    return;
  }
  const Rows rows(logits);
  const Labels labels(label, rows.count, rows.size, ignore_index);
  const Bf16* from = bits(logits);
  Bf16* const to = allocate<T>(context, softmax);
  Bf16* const losses = allocate<T>(context, loss);
  rows.for_each([&](std::int64_t r, float* buffer) {
    const Bf16* row = from + r * rows.size;
    const float at_label = labels.ignored_at(r) ? 0.f : widen(row[labels[r]]);
    const auto result = exponentials(row, buffer, rows.size);
    losses[r] = labels.ignored_at(r)
                    ? Bf16{0}
                    : narrow(std::log(result.sum) + (result.largest - at_label));
    write_scaled(buffer, 1.f / result.sum, to + r * rows.size, rows.size);
  });
}

template <typename T, typename Context>
void CrossEntropyGrad(const Context& context, const Tensor& label, const Tensor& softmax,
                      const Tensor& dloss, bool soft_label, bool use_softmax, bool stable,
                      int ignore_index, int axis, Tensor* dlogits) {
  if (soft_label || !use_softmax || !is_last(axis, softmax) || !has_index_labels(label)) {
    compute_in_float32<const Tensor&, const Tensor&, const Tensor&, bool, bool, bool, int, int,
                       Tensor*>("cross_entropy_with_softmax_grad", context, label, softmax, dloss,
                                soft_label, use_softmax, stable, ignore_index, axis, dlogits);
    return;
  }
  const Rows rows(softmax);
  const Labels labels(label, rows.count, rows.size, ignore_index);
  const Bf16* from = bits(softmax);
  Bf16* const to = allocate<T>(context, dlogits);  // perhaps the memory of softmax
  rows.for_each([&](std::int64_t r, float* buffer) {
    const std::int64_t first = r * rows.size;
    const float factor = labels.ignored_at(r) ? 0.f : widen(bits(dloss)[r]);
    for (std::int64_t i = 0; i < rows.size; ++i) buffer[i] = widen(from[first + i]);
    if (!labels.ignored_at(r)) buffer[labels[r]] -= 1.f;
    write_scaled(buffer, factor, to + first, rows.size);
  });
}

}  // namespace oarlock

#define OARLOCK_WITH_GRADIENT(name, Kernel)                                             \
  PD_REGISTER_KERNEL(name, CPU, ALL_LAYOUT, oarlock::Kernel, phi::bfloat16) {}          \
  PD_REGISTER_KERNEL(name##_grad, CPU, ALL_LAYOUT, oarlock::Kernel##Grad, phi::bfloat16) {}

OARLOCK_WITH_GRADIENT(softmax, Softmax)
OARLOCK_WITH_GRADIENT(log_softmax, LogSoftmax)
OARLOCK_WITH_GRADIENT(cross_entropy_with_softmax, CrossEntropy)
