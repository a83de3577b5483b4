// Paddle's `add`, `subtract`, `multiply` and their gradients for bfloat16 on the CPU.
//
// Paddle has the last two, thirty times slower; results are the same.

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "common/broadcast.h"
#include "common/elementwise.h"
#include "common/tensor.h"
#include "paddle/phi/core/kernel_registry.h"

namespace oarlock {
namespace {

struct Negative {
  static float of(float x) { return -x; }
};

void fill_zero(Bf16* to, std::int64_t count) { std::fill(to, to + count, Bf16{0}); }

// The sum of dout to the shape of `dx`, where the operand was broadcast. Paddle may let dx have the
// memory of dout, even where dx is smaller.
template <typename T, typename Context>
void summed(const Context& context, const phi::DenseTensor& dout, phi::DenseTensor* dx) {
  Bf16* to = allocate<T>(context, dx);
  if (dout.numel() == 0) {
    fill_zero(to, dx->numel());
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

// dx = the sum of dout * other to the shape of dx.
template <typename T, typename Context>
void summed_product(const Context& context, const phi::DenseTensor& dout,
                    const phi::DenseTensor& other, phi::DenseTensor* dx) {
  Bf16* to = allocate<T>(context, dx);
  const Dims dims = dims_of(dout);
  if (dout.numel() == 0) {
    fill_zero(to, dx->numel());
  } else if (dx->dims() == dout.dims()) {
    broadcast<Multiply>(bits(dout), dims, bits(other), dims_of(other), to, dims);
  } else {
    const std::unique_ptr<float[]> all(new float[dout.numel()]);
    broadcast<Multiply>(bits(dout), dims, bits(other), dims_of(other), all.get(), dims);
    sum_to(all.get(), dims, to, dims_of(*dx));
  }
}

}  // namespace

template <typename Op>
struct Binary {
  template <typename T, typename Context>
  static void kernel(const Context& context, const phi::DenseTensor& x, const phi::DenseTensor& y,
                     phi::DenseTensor* out) {
    Bf16* to = allocate<T>(context, out);
    if (out->numel() == 0) return;
    broadcast<Op>(bits(x), dims_of(x), bits(y), dims_of(y), to, dims_of(*out));
  }
};

// In all three, dx comes last, since it may have the memory of dout.
template <typename T, typename Context>
void AddGrad(const Context& context, const phi::DenseTensor&, const phi::DenseTensor&,
             const phi::DenseTensor& dout, int, phi::DenseTensor* dx, phi::DenseTensor* dy) {
  if (dy != nullptr) summed<T>(context, dout, dy);
  if (dx != nullptr) summed<T>(context, dout, dx);
}

template <typename T, typename Context>
void SubtractGrad(const Context& context, const phi::DenseTensor&, const phi::DenseTensor&,
                  const phi::DenseTensor& dout, int, phi::DenseTensor* dx, phi::DenseTensor* dy) {
  if (dy != nullptr) {
    summed<T>(context, dout, dy);
    Bf16* const to = allocate<T>(context, dy);
    apply<Negative>(dy->numel(), to, static_cast<const Bf16*>(to));
  }
  if (dx != nullptr) summed<T>(context, dout, dx);
}

template <typename T, typename Context>
void MultiplyGrad(const Context& context, const phi::DenseTensor& x, const phi::DenseTensor& y,
                  const phi::DenseTensor& dout, int, phi::DenseTensor* dx, phi::DenseTensor* dy) {
  if (dy != nullptr) summed_product<T>(context, dout, x, dy);
  if (dx != nullptr) summed_product<T>(context, dout, y, dx);
}

}  // namespace oarlock

#define OARLOCK_BINARY(name, Op)                                                           \
  PD_REGISTER_KERNEL(name, CPU, ALL_LAYOUT, oarlock::Binary<oarlock::Op>::kernel,          \
                     phi::bfloat16) {}                                                     \
  PD_REGISTER_KERNEL(name##_grad, CPU, ALL_LAYOUT, oarlock::Op##Grad, phi::bfloat16) {}

OARLOCK_BINARY(add, Add)
OARLOCK_BINARY(subtract, Subtract)
OARLOCK_BINARY(multiply, Multiply)
