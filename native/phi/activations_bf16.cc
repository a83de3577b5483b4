// Paddle's elementwise functions and their gradients for bfloat16 on the CPU.
//
// One line each: a struct with the function, and its registration. Gradients are given what
// Paddle saves: the operand (of x) or the result (of out).

#include "common/elementwise.h"
#include "common/math.h"
#include "common/tensor.h"
#include "paddle/phi/core/kernel_registry.h"

namespace oarlock {
namespace {

constexpr float kInverseRoot2Pi = 0.398942280f;
constexpr float kRoot2OverPi = 0.797884561f;
constexpr float kGeluCubic = 0.044715f;

struct Relu {
  static float of(float x) { return x < 0.f ? 0.f : x; }
};
struct ReluGrad {
  static float of(float out, float dout) { return out > 0.f ? dout : 0.f; }
};
struct Sigmoid {
  static float of(float x) { return fast_sigmoid(x); }
};
struct SigmoidGrad {
  static float of(float out, float dout) { return dout * out * (1.f - out); }
};
struct Tanh {
  static float of(float x) { return fast_tanh(x); }
};
struct TanhGrad {
  static float of(float out, float dout) { return dout * (1.f - out * out); }
};
struct Exp {
  static float of(float x) { return fast_exp(x); }
};
struct ExpGrad {
  static float of(float out, float dout) { return dout * out; }
};
struct Sqrt {
  static float of(float x) { return std::sqrt(x); }
};
struct SqrtGrad {
  static float of(float out, float dout) { return 0.5f * dout / out; }
};
struct Rsqrt {
  static float of(float x) { return 1.f / std::sqrt(x); }
};
struct RsqrtGrad {
  static float of(float out, float dout) { return -0.5f * dout * out * out * out; }
};
struct Square {
  static float of(float x) { return x * x; }
};
struct SquareGrad {
  static float of(float x, float dout) { return 2.f * dout * x; }
};
struct Silu {
  static float of(float x) { return x * fast_sigmoid(x); }
};
struct SiluGrad {
  static float of(float x, float dout) {
    const float s = fast_sigmoid(x);
    return dout * s * (1.f + x * (1.f - s));
  }
};
struct Gelu {
  static float of(float x) { return x * normal_probability(x, fast_exp(-0.5f * x * x)); }
};
struct GeluGrad {
  static float of(float x, float dout) {
    const float density = fast_exp(-0.5f * x * x);
    return dout * (normal_probability(x, density) + x * kInverseRoot2Pi * density);
  }
};
struct GeluTanh {  // 0.5 x (1 + tanh(u)) = x sigmoid(2u), u a cubic
  static float of(float x) {
    return x * fast_sigmoid(2.f * kRoot2OverPi * (x + kGeluCubic * x * x * x));
  }
};
struct GeluTanhGrad {
  static float of(float x, float dout) {
    const float s = fast_sigmoid(2.f * kRoot2OverPi * (x + kGeluCubic * x * x * x));
    const float slope = 2.f * kRoot2OverPi * (1.f + 3.f * kGeluCubic * x * x);
    return dout * (s + x * s * (1.f - s) * slope);
  }
};

struct Swiglu {
  static float of(float x, float y) { return Silu::of(x) * y; }
};
struct SwigluGradX {
  static float of(float x, float y, float dout) { return SiluGrad::of(x, dout * y); }
};
struct SwigluGradY {
  static float of(float x, float dout) { return Silu::of(x) * dout; }
};

}  // namespace

template <typename Function>
struct Unary {
  template <typename T, typename Context>
  static void kernel(const Context& context, const phi::DenseTensor& x, phi::DenseTensor* out) {
    apply<Function>(x.numel(), allocate<T>(context, out), bits(x));
  }
};

// `saved` is x or out, whichever Paddle saves.
template <typename Function>
struct UnaryGrad {
  template <typename T, typename Context>
  static void kernel(const Context& context, const phi::DenseTensor& saved,
                     const phi::DenseTensor& dout, phi::DenseTensor* dx) {
    apply<Function>(dout.numel(), allocate<T>(context, dx), bits(saved), bits(dout));
  }
};

template <typename T, typename Context>
void SiluGradKernel(const Context& context, const phi::DenseTensor& x, const phi::DenseTensor&,
                    const phi::DenseTensor& dout, phi::DenseTensor* dx) {
  apply<SiluGrad>(x.numel(), allocate<T>(context, dx), bits(x), bits(dout));
}

template <typename T, typename Context>
void GeluKernel(const Context& context, const phi::DenseTensor& x, bool approximate,
                phi::DenseTensor* out) {
  const auto kernel = approximate ? &apply<GeluTanh, Bf16> : &apply<Gelu, Bf16>;
  kernel(x.numel(), allocate<T>(context, out), bits(x));
}

template <typename T, typename Context>
void GeluGradKernel(const Context& context, const phi::DenseTensor& x,
                    const phi::DenseTensor& dout, bool approximate, phi::DenseTensor* dx) {
  const auto kernel = approximate ? &apply<GeluTanhGrad, Bf16, Bf16> : &apply<GeluGrad, Bf16, Bf16>;
  kernel(x.numel(), allocate<T>(context, dx), bits(x), bits(dout));
}

// silu(x) * y, where y may be the right half of each row of x.
struct SwigluOperands {
  std::int64_t rows, size, x_step;
  const Bf16 *x, *y;

  SwigluOperands(const phi::DenseTensor& given, const paddle::optional<phi::DenseTensor>& other)
      : rows(1), size(given.numel()), x_step(given.numel()), x(bits(given)), y(nullptr) {
    if (other) {
      PADDLE_ENFORCE_EQ(other->dims(), given.dims(),
                        common::errors::InvalidArgument("swiglu: x of shape [%s], y of [%s].",
                                                        given.dims(), other->dims()));
      y = bits(*other);
      return;
    }
    x_step = given.dims()[given.dims().size() - 1];
    PADDLE_ENFORCE_EQ(x_step % 2, 0,
                      common::errors::InvalidArgument(
                          "swiglu: without y the last dimension must be even, not %d.", x_step));
    rows = x_step == 0 ? 0 : given.numel() / x_step;
    size = x_step / 2;
    y = x + size;
  }
};

template <typename T, typename Context>
void SwigluKernel(const Context& context, const phi::DenseTensor& x,
                  const paddle::optional<phi::DenseTensor>& y, phi::DenseTensor* out) {
  Bf16* const to = allocate<T>(context, out);
  const SwigluOperands of(x, y);
  if (of.rows == 1) {
    apply<Swiglu>(of.size, to, of.x, of.y);
    return;
  }
  parallel_ranges(of.rows, kElementGrain / (of.size + 1) + 1, [&](auto begin, auto end) {
    for (auto r = begin; r < end; ++r)
      apply_range<Swiglu>(to + r * of.size, 0, of.size, of.x + r * of.x_step,
                          of.y + r * of.x_step);
  });
}

template <typename T, typename Context>
void SwigluGradKernel(const Context& context, const phi::DenseTensor& x,
                      const paddle::optional<phi::DenseTensor>& y, const phi::DenseTensor& dout,
                      phi::DenseTensor* dx, phi::DenseTensor* dy) {
  const SwigluOperands of(x, y);
  Bf16* const to_x = dx != nullptr ? allocate<T>(context, dx) : nullptr;
  Bf16* to_y = y && dy != nullptr ? allocate<T>(context, dy) : nullptr;
  if (!y && to_x != nullptr) to_y = to_x + of.size;
  const Bf16* from = bits(dout);
  const auto row = [&](std::int64_t r, std::int64_t begin, std::int64_t end) {
    const std::int64_t at = r * of.x_step;
    if (to_y != nullptr)
      apply_range<SwigluGradY>(to_y + at, begin, end, of.x + at, from + r * of.size);
    if (to_x != nullptr)
      apply_range<SwigluGradX>(to_x + at, begin, end, of.x + at, of.y + at, from + r * of.size);
  };
  if (of.rows == 1) {
    parallel_ranges(of.size, kElementGrain, [&](auto begin, auto end) { row(0, begin, end); });
    return;
  }
  parallel_ranges(of.rows, kElementGrain / (of.size + 1) + 1, [&](auto begin, auto end) {
    for (auto r = begin; r < end; ++r) row(r, 0, of.size);
  });
}

}  // namespace oarlock

#define OARLOCK_UNARY(name, Function)                                                  \
  PD_REGISTER_KERNEL(name, CPU, ALL_LAYOUT, oarlock::Unary<oarlock::Function>::kernel, \
                     phi::bfloat16) {}                                                 \
  PD_REGISTER_KERNEL(name##_grad, CPU, ALL_LAYOUT,                                     \
                     oarlock::UnaryGrad<oarlock::Function##Grad>::kernel, phi::bfloat16) {}

OARLOCK_UNARY(relu, Relu)
OARLOCK_UNARY(sigmoid, Sigmoid)
OARLOCK_UNARY(tanh, Tanh)
OARLOCK_UNARY(exp, Exp)
OARLOCK_UNARY(sqrt, Sqrt)
OARLOCK_UNARY(rsqrt, Rsqrt)
OARLOCK_UNARY(square, Square)
PD_REGISTER_KERNEL(silu, CPU, ALL_LAYOUT, oarlock::Unary<oarlock::Silu>::kernel, phi::bfloat16) {}
PD_REGISTER_KERNEL(silu_grad, CPU, ALL_LAYOUT, oarlock::SiluGradKernel, phi::bfloat16) {}
PD_REGISTER_KERNEL(gelu, CPU, ALL_LAYOUT, oarlock::GeluKernel, phi::bfloat16) {}
PD_REGISTER_KERNEL(gelu_grad, CPU, ALL_LAYOUT, oarlock::GeluGradKernel, phi::bfloat16) {}
PD_REGISTER_KERNEL(swiglu, CPU, ALL_LAYOUT, oarlock::SwigluKernel, phi::bfloat16) {}
PD_REGISTER_KERNEL(swiglu_grad, CPU, ALL_LAYOUT, oarlock::SwigluGradKernel, phi::bfloat16) {}
