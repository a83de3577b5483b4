// Kernels for bfloat16 made out of Paddle's own float32 kernels: widen, compute, round once.
//
// OARLOCK_WIDENED(name, function) registers such a kernel. Only the declaration of `function` is
// used, for its signature; the kernel is found by name in Paddle's registry. bfloat16 inputs are
// copied to float32, so that results may lie in the memory of the inputs.
#pragma once

#include <type_traits>
#include <vector>

#include "common/tensor.h"
#include "paddle/phi/core/kernel_registry.h"
#include "paddle/utils/optional.h"

namespace oarlock {

phi::DenseTensor widened(const phi::CPUContext& context, const phi::DenseTensor& tensor);

// A float32 stand-in for a result; the result itself where that is not to be bfloat16.
class WideResult {
 public:
  explicit WideResult(phi::DenseTensor* result);
  phi::DenseTensor* get() { return in_place_ ? result_ : &wide_; }
  void finish(const phi::CPUContext& context);

 private:
  phi::DenseTensor* result_;
  bool in_place_;
  phi::DenseTensor wide_;
};

// What the float32 kernel gets in the place of an argument of type A.
template <typename A>
class Argument {
  static_assert(!std::is_pointer_v<A> && !std::is_base_of_v<phi::TensorBase, std::decay_t<A>>);

 public:
  Argument(const phi::CPUContext&, A value) : value_(value) {}
  A get() { return value_; }
  void finish(const phi::CPUContext&) {}

 private:
  A value_;
};

template <>
class Argument<phi::DataType> {
 public:
  Argument(const phi::CPUContext&, phi::DataType type) : type_(type) {}
  phi::DataType get() {
    return type_ == phi::DataType::BFLOAT16 ? phi::DataType::FLOAT32 : type_;
  }
  void finish(const phi::CPUContext&) {}

 private:
  phi::DataType type_;
};

template <>
class Argument<const phi::DenseTensor&> {
 public:
  Argument(const phi::CPUContext& context, const phi::DenseTensor& tensor)
      : wide_(widened(context, tensor)) {}
  const phi::DenseTensor& get() { return wide_; }
  void finish(const phi::CPUContext&) {}

 private:
  phi::DenseTensor wide_;
};

template <>
class Argument<const paddle::optional<phi::DenseTensor>&> {
 public:
  Argument(const phi::CPUContext& context, const paddle::optional<phi::DenseTensor>& tensor) {
    if (tensor) wide_ = widened(context, *tensor);
  }
  const paddle::optional<phi::DenseTensor>& get() { return wide_; }
  void finish(const phi::CPUContext&) {}

 private:
  paddle::optional<phi::DenseTensor> wide_;
};

template <>
class Argument<const std::vector<const phi::DenseTensor*>&> {
 public:
  Argument(const phi::CPUContext& context, const std::vector<const phi::DenseTensor*>& tensors) {
    wide_.reserve(tensors.size());
    for (const auto* tensor : tensors) {
      if (tensor != nullptr) wide_.push_back(widened(context, *tensor));
      pointers_.push_back(tensor != nullptr ? &wide_.back() : nullptr);
    }
  }
  const std::vector<const phi::DenseTensor*>& get() { return pointers_; }
  void finish(const phi::CPUContext&) {}

 private:
  std::vector<phi::DenseTensor> wide_;
  std::vector<const phi::DenseTensor*> pointers_;
};

template <>
class Argument<phi::DenseTensor*> {
 public:
  Argument(const phi::CPUContext&, phi::DenseTensor* result) : wide_(result) {}
  phi::DenseTensor* get() { return wide_.get(); }
  void finish(const phi::CPUContext& context) { wide_.finish(context); }

 private:
  WideResult wide_;
};

template <>
class Argument<std::vector<phi::DenseTensor*>> {
 public:
  Argument(const phi::CPUContext&, const std::vector<phi::DenseTensor*>& results) {
    for (auto* result : results) wide_.emplace_back(result);
  }
  std::vector<phi::DenseTensor*> get() {
    std::vector<phi::DenseTensor*> pointers;
    for (auto& result : wide_) pointers.push_back(result.get());
    return pointers;
  }
  void finish(const phi::CPUContext& context) {
    for (auto& result : wide_) result.finish(context);
  }

 private:
  std::vector<WideResult> wide_;
};

// Calls a float32 kernel: with the arguments eager mode passes, all of them `wide` copies …
template <typename... Args>
void call_widened(void (*float32)(const phi::CPUContext&, Args...), const phi::CPUContext& context,
                  Argument<Args>... wide) {
  float32(context, wide.get()...);
  (wide.finish(context), ...);
}

// … and with those that a static graph passes.
void call_widened(const phi::Kernel& float32, phi::KernelContext* given);

// For kernels that leave a rare case to Paddle's float32 kernel `name`.
template <typename... Args>
void compute_in_float32(const char* name, const phi::CPUContext& context, Args... args) {
  const phi::KernelKey key(phi::Backend::CPU, phi::DataLayout::ALL_LAYOUT, phi::DataType::FLOAT32);
  const auto& kernel = phi::KernelFactory::Instance().SelectKernel(name, key);
  call_widened<Args...>(
      kernel.GetVariadicKernelFn<void (*)(const phi::CPUContext&, Args...)>(), context,
      Argument<Args>(context, args)...);
}

// Paddle's float32 kernel, whose arguments must be those of `ours`; takes over its notes on where
// arguments live. An invalid kernel, after noting the name, where there is none such.
phi::Kernel float32_kernel(const char* name, phi::Kernel* ours);

template <typename Name, typename Signature>
struct Widened;

template <typename Name, typename... Args>
struct Widened<Name, void (*)(const phi::CPUContext&, Args...)> {
  using Function = void (*)(const phi::CPUContext&, Args...);

  static phi::Kernel& float32() {  // made when first asked for, whatever the order of registrations
    static phi::Kernel kernel;
    return kernel;
  }

  static void eager(const phi::DeviceContext& context, Args... args) {
    const auto& cpu = static_cast<const phi::CPUContext&>(context);
    call_widened<Args...>(float32().GetVariadicKernelFn<Function>(), cpu,
                          Argument<Args>(cpu, args)...);
  }

  static void in_graph(phi::KernelContext* context) { call_widened(float32(), context); }

  static void define(const phi::KernelKey&, phi::Kernel* ours) {
    float32() = float32_kernel(Name::text, ours);
  }

  static phi::KernelRegistrar registrar() {
    return phi::KernelRegistrar(phi::RegType::INNER, Name::text, "CPU",
                                phi::DataLayout::ALL_LAYOUT, phi::DataType::BFLOAT16,
                                &phi::KernelArgsParseFunctor<Function>::Parse, &define, &in_graph,
                                reinterpret_cast<void*>(&eager));
  }
};

}  // namespace oarlock

#define OARLOCK_WIDENED(name, function)                                                 \
  namespace oarlock {                                                                   \
  struct Named_##name {                                                                 \
    static constexpr const char* text = #name;                                          \
  };                                                                                    \
  static const phi::KernelRegistrar registered_##name =                                 \
      Widened<Named_##name, decltype(&phi::function<float, phi::CPUContext>)>::registrar(); \
  }
