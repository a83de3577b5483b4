// Products of matrices in blocks that stay in registers.
//
// A block has kBlockRows rows and kBlockRegisters registers beside each other. Left operands are read
// one number at a time, right operands a register at a time.
#pragma once

#include "attention/vector.h"

namespace oarlock::OARLOCK_PATH {
namespace {

// Accumulators of a block of C registers beside each other.
template <int C>
struct Block {
  floats sums[kBlockRows][C];

  OARLOCK_ALWAYS_INLINE void clear() {
#pragma GCC unroll 16
    for (int r = 0; r < kBlockRows; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sums[r][c] = floats{};
  }
  OARLOCK_ALWAYS_INLINE void load(const float* from, int64_t stride) {
#pragma GCC unroll 16
    for (int r = 0; r < kBlockRows; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sums[r][c] = load_floats(from + r * stride + c * kLanes);
  }
  // Each row times its factor.
  OARLOCK_ALWAYS_INLINE void load_scaled(const float* from, int64_t stride, const float* factors) {
#pragma GCC unroll 16
    for (int r = 0; r < kBlockRows; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c)
        sums[r][c] = load_floats(from + r * stride + c * kLanes) * all(factors[r]);
  }
  OARLOCK_ALWAYS_INLINE void store(float* to, int64_t stride) const {
#pragma GCC unroll 16
    for (int r = 0; r < kBlockRows; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) store_floats(to + r * stride + c * kLanes, sums[r][c]);
  }
  // From each row its number.
  OARLOCK_ALWAYS_INLINE void subtract(const float* numbers) {
#pragma GCC unroll 16
    for (int r = 0; r < kBlockRows; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sums[r][c] -= all(numbers[r]);
  }
  // By the numbers at the same places.
  OARLOCK_ALWAYS_INLINE void multiply(const float* by, int64_t stride) {
#pragma GCC unroll 16
    for (int r = 0; r < kBlockRows; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sums[r][c] *= load_floats(by + r * stride + c * kLanes);
  }
  // To powers of two.
  OARLOCK_ALWAYS_INLINE void raise() {
#pragma GCC unroll 16
    for (int r = 0; r < kBlockRows; ++r)
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sums[r][c] = power_of_two(sums[r][c]);
  }

  // sums[r] += sum over k of left(r, k) right[k]: right[k] begins at right + k * right_stride, and
  // left(r, k) is left[r * left_stride + k], or transposed left[k * left_stride + r].
  template <bool transposed>
  OARLOCK_ALWAYS_INLINE void add(const float* left, int64_t left_stride, const float* right,
                                 int64_t right_stride, int64_t count) {
    // Three rows share a pointer: the processor can add 0, 1 or 2 strides by itself.
    const float* rows[kBlockRows / 3];
#pragma GCC unroll 16
    for (int i = 0; i < kBlockRows / 3; ++i) rows[i] = left + 3 * i * left_stride;
    for (int64_t k = 0; k < count; ++k) {
      floats beside[C];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) beside[c] = load_floats(right + c * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < kBlockRows; ++r) {
        const floats one = all(transposed ? left[r] : rows[r / 3][r % 3 * left_stride]);
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) sums[r][c] = multiply_add(one, beside[c], sums[r][c]);
      }
      right += right_stride;
      if constexpr (transposed) {
        left += left_stride;
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < kBlockRows / 3; ++i) ++rows[i];
      }
    }
  }
};

// to[r] += left right for kBlockRows rows and `width` columns, a multiple of kLanes.
template <bool transposed>
inline void add_product(float* to, const float* left, int64_t left_stride, const float* right,
                        int64_t count, int64_t width) {
  const auto columns = [&](auto block, int64_t column) {
    block.load(to + column, width);
    block.template add<transposed>(left, left_stride, right + column, width, count);
    block.store(to + column, width);
  };
  int64_t column = 0;
  for (; column + kPanel <= width; column += kPanel) columns(Block<kBlockRegisters>{}, column);
  for (; column < width; column += kLanes) columns(Block<1>{}, column);
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
