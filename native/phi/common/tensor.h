// Paddle's tensors as the kernels here see them.
#pragma once

#include "common/bf16.h"
#include "paddle/phi/backends/cpu/cpu_context.h"
#include "paddle/phi/common/bfloat16.h"
#include "paddle/phi/core/dense_tensor.h"

namespace oarlock {

static_assert(sizeof(phi::bfloat16) == sizeof(Bf16));

inline const Bf16* bits(const phi::DenseTensor& tensor) {
  return reinterpret_cast<const Bf16*>(tensor.data<phi::bfloat16>());
}

template <typename T, typename Context>
Bf16* allocate(const Context& context, phi::DenseTensor* tensor) {
  return reinterpret_cast<Bf16*>(context.template Alloc<T>(tensor));
}

inline std::vector<std::int64_t> dims_of(const phi::DenseTensor& tensor) {
  return common::vectorize<std::int64_t>(tensor.dims());
}

}  // namespace oarlock
