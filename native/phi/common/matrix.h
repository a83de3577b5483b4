// Products of (batches of) matrices in bfloat16 with float32 accumulation, by oneDNN.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "common/bf16.h"

namespace oarlock {

// A batch of bfloat16 matrices, seen through strides so that a transpose costs nothing.
struct Matrices {
  const Bf16* data;
  std::vector<std::int64_t> batch;  // contiguous, outermost first; size 1 broadcasts
  std::int64_t rows, cols, row_stride, col_stride;

  // The last two of `dims` are the matrix, the ones before the batch.
  static Matrices of(const Bf16* data, const std::vector<std::int64_t>& dims);
  Matrices transposed() const;
  std::int64_t count() const;  // elements in all
};

// How products are computed: in `native` bfloat16, or widened to `float32` and rounded afterwards
// (any processor). oneDNN has the first for every AVX-512, but without AVX512-BF16 it emulates it,
// four times as slow as float32.
enum class Path { native, float32 };
Path best_path();
bool has_native();

// out = a @ b, row-major, one matrix per element of the broadcast batch; `bias` (one element per
// column) is added to each row before rounding.
// Out is Bf16 or, to be summed further without loss, float.
template <typename Out>
void multiply(const Matrices& a, const Matrices& b, Out* out, Path path,
              const Bf16* bias = nullptr);

// The batch dimensions of a @ b.
std::vector<std::int64_t> broadcast_batch(const Matrices& a, const Matrices& b);

}  // namespace oarlock
