// Paddle's `add` and its gradient for bfloat16 on the CPU.

#include <algorithm>
#include <cstring>
#include <vector>

#include "common/broadcast.h"
#include "common/tensor.h"
#include "paddle/phi/core/kernel_registry.h"

namespace oarlock {

template <typename T, typename Context>
void Add(const Context& context, const phi::DenseTensor& x, const phi::DenseTensor& y,
         phi::DenseTensor* out) {
  Bf16* to = allocate<T>(context, out);
  if (out->numel() == 0) return;
  add(bits(x), dims_of(x), bits(y), dims_of(y), to, dims_of(*out));
}

// The gradient of an operand is dout, summed where the operand was broadcast.
template <typename T, typename Context>
void AddGradOf(const Context& context, const phi::DenseTensor& dout, phi::DenseTensor* dx) {
  if (dx == nullptr) return;
  Bf16* to = allocate<T>(context, dx);
  if (dout.numel() == 0) {
    std::fill(to, to + dx->numel(), Bf16{0});
  } else if (dx->dims() == dout.dims()) {
    if (to != bits(dout)) std::memcpy(to, bits(dout), dout.numel() * sizeof(Bf16));
  } else if (to == bits(dout)) {
    std::vector<Bf16> sum(dx->numel());
    sum_to(bits(dout), dims_of(dout), sum.data(), dims_of(*dx));
    std::copy(sum.begin(), sum.end(), to);
  } else {
    sum_to(bits(dout), dims_of(dout), to, dims_of(*dx));
  }
}

template <typename T, typename Context>
void AddGrad(const Context& context, const phi::DenseTensor&, const phi::DenseTensor&,
             const phi::DenseTensor& dout, int, phi::DenseTensor* dx, phi::DenseTensor* dy) {
  // Paddle may let dx have the memory of dout (even where dx is smaller), so dx comes last.
  AddGradOf<T>(context, dout, dy);
  AddGradOf<T>(context, dout, dx);
}

}  // namespace oarlock

PD_REGISTER_KERNEL(add, CPU, ALL_LAYOUT, oarlock::Add, phi::bfloat16) {}
PD_REGISTER_KERNEL(add_grad, CPU, ALL_LAYOUT, oarlock::AddGrad, phi::bfloat16) {}
