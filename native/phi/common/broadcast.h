// Arithmetic with broadcasting, and its transpose: the sum over the broadcast dimensions.
#pragma once

#include <cstdint>
#include <vector>

#include "common/bf16.h"

namespace oarlock {

using Dims = std::vector<std::int64_t>;

// Arithmetic of two elements.
struct Add {
  static float of(float x, float y) { return x + y; }
};
struct Subtract {
  static float of(float x, float y) { return x - y; }
};
struct Multiply {
  static float of(float x, float y) { return x * y; }
};

// out = Op::of(x, y). Shapes are aligned at their last dimension; size 1 repeats. All are
// contiguous. `out` may be the memory of an operand of the same shape. Out is Bf16 or, to be summed
// further without loss, float.
template <typename Op, typename Out>
void broadcast(const Bf16* x, const Dims& x_dims, const Bf16* y, const Dims& y_dims, Out* out,
               const Dims& out_dims);

// Sums `from` over the dimensions that `to` lacks or has of size 1, in float32, in an order that
// does not depend on the number of threads; times `factor`, and rounded.
template <typename T>
void sum_to(const T* from, const Dims& from_dims, Bf16* to, const Dims& to_dims,
            float factor = 1.f);

}  // namespace oarlock
