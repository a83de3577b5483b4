// Choosing and starting the kernel of a product.
#pragma once

#include "lowp/finish.cuh"
#include "lowp/layout.h"

namespace oarlock::cuda::lowp {

// Numbers of two formats on the device of this call. `base`: without what only some GPUs have.
Numbers numbers_of(oarlock::lowp::Format a, oarlock::lowp::Format b, bool base);

// Elements of the reduction in one step of `numbers`.
constexpr int per_step(Numbers numbers) {
  switch (numbers) {
    case Numbers::bf16:
    case Numbers::fp16: return 16;
    case Numbers::floats: return 1;
    default: return 32;
  }
}

// Rows of op(a) and columns of op(b), each with the reduction contiguous; rows begin at multiples of
// 16 bytes, and hold zeros where the reduction has ended.
struct Product {
  const char *a, *b;
  std::int64_t a_pitch, b_pitch;     // bytes from one row to the next
  std::int64_t steps;                // of the reduction, of 32 bytes (of int16: of each digit)
  std::int64_t interval;             // steps until sums are scaled
  std::int64_t intervals_of_block;   // ... until the next scales
  Finish finish;
};

void multiply(Numbers numbers, const Product& product);

// What b holds.
enum class Weights { int8, bf16, fp16, e4m3, e5m2 };
OARLOCK_MAP bool is_fp8(Weights weights) {
  return weights == Weights::e4m3 || weights == Weights::e5m2;
}

struct FewRows {
  const char* a;              // [rows, a_pitch bytes]: int8, bfloat16, or fp16 also for fp8 of b
  const char* b;
  std::int64_t a_pitch, b_pitch;
  std::int64_t rows, columns, elements;
  std::int64_t unit;          // elements of a sum
  void* parts;                // [units, rows, columns], int32 or float
};

// A product of at most kMostFewRows rows: `across`, the rows of b are contiguous and not the
// reduction. `interval` is in elements.
void multiply_few(Weights weights, bool across, const FewRows& p, std::int64_t interval,
                  std::int64_t intervals_of_block, const Finish& finish);

}  // namespace oarlock::cuda::lowp
