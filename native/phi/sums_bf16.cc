// Paddle's `sum` and `mean` for bfloat16 on the CPU. Paddle has `sum`, many times slower.

#include <algorithm>

#include "common/broadcast.h"
#include "common/tensor.h"
#include "common/widened.h"

namespace oarlock {
namespace {

// The shape of x with size 1 where it is summed; no axes mean all of them.
Dims summed_dims(const phi::DenseTensor& x, const phi::IntArray& axes) {
  Dims dims = dims_of(x);
  if (axes.size() == 0) std::fill(dims.begin(), dims.end(), 1);
  for (const std::int64_t axis : axes.GetData()) dims.at(axis < 0 ? axis + dims.size() : axis) = 1;
  return dims;
}

void sum_over(const phi::DenseTensor& x, const Dims& to_dims, Bf16* to, std::int64_t to_count,
              float factor) {
  if (x.numel() == 0) {
    std::fill(to, to + to_count, narrow(0.f * factor));  // a mean of nothing is NaN
  } else {
    sum_to(bits(x), dims_of(x), to, to_dims, factor);
  }
}

}  // namespace

template <typename T, typename Context>
void Sum(const Context& context, const phi::DenseTensor& x, const phi::IntArray& axes,
         phi::DataType out_type, bool keep_dim, phi::DenseTensor* out) {
  if (out_type != phi::DataType::UNDEFINED && out_type != phi::DataType::BFLOAT16) {
    compute_in_float32<const phi::DenseTensor&, const phi::IntArray&, phi::DataType, bool,
                       phi::DenseTensor*>("sum", context, x, axes, out_type, keep_dim, out);
    return;
  }
  Bf16* const to = allocate<T>(context, out);
  sum_over(x, summed_dims(x, axes), to, out->numel(), 1.f);
}

template <typename T, typename Context>
void Mean(const Context& context, const phi::DenseTensor& x, const phi::IntArray& axes, bool,
          phi::DenseTensor* out) {
  Bf16* const to = allocate<T>(context, out);
  const float terms = static_cast<float>(x.numel()) / static_cast<float>(out->numel());
  sum_over(x, summed_dims(x, axes), to, out->numel(), 1.f / terms);
}

}  // namespace oarlock

PD_REGISTER_KERNEL(sum, CPU, ALL_LAYOUT, oarlock::Sum, phi::bfloat16) {
  kernel->OutputAt(0).SetDataType(phi::DataType::UNDEFINED);
}
PD_REGISTER_KERNEL(mean, CPU, ALL_LAYOUT, oarlock::Mean, phi::bfloat16) {}
