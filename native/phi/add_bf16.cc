// Paddle's `add` and its gradient for bfloat16 on the CPU.

#include <algorithm>
#include <cstring>

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
  const bool same = dx->dims() == dout.dims();
  if (same && dx->IsSharedBufferWith(dout)) return;
  Bf16* to = allocate<T>(context, dx);
  if (dout.numel() == 0) {
    std::fill(to, to + dx->numel(), Bf16{0});
  } else if (same) {
    std::memcpy(to, bits(dout), dout.numel() * sizeof(Bf16));
  } else {
    sum_to(bits(dout), dims_of(dout), to, dims_of(*dx));
  }
}

template <typename T, typename Context>
void AddGrad(const Context& context, const phi::DenseTensor&, const phi::DenseTensor&,
             const phi::DenseTensor& dout, int, phi::DenseTensor* dx, phi::DenseTensor* dy) {
  AddGradOf<T>(context, dout, dx);
  AddGradOf<T>(context, dout, dy);
}

}  // namespace oarlock

PD_REGISTER_KERNEL(add, CPU, ALL_LAYOUT, oarlock::Add, phi::bfloat16) {}
PD_REGISTER_KERNEL(add_grad, CPU, ALL_LAYOUT, oarlock::AddGrad, phi::bfloat16) {}
