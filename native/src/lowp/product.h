// A product of two operands: panels, blocks that fit the caches, threads.
#pragma once

#include "lowp/operand.h"

namespace oarlock::lowp {

// How products of two formats are computed on the path of this thread.
struct Arithmetic {
  Unit unit;
  const Tile* tile;        // by rows - 1
  int tile_rows, panel_width;
  bool integers;
  std::int64_t most_summed;  // products that a sum surely holds; 0 for any number
};

// `base`: without the instructions that only some processors of the path have.
Arithmetic arithmetic_of(Format a, Format b, bool base);

struct Result {
  void* data;
  std::int32_t dtype;  // float32 or bfloat16
  const float* bias;   // or null
  Activation activation;
};

// out[M, N] = activation(op(a) op(b) + bias), both operands `depth` deep.
void multiply(Operand& a, Operand& b, const Depth& depth, const Arithmetic& arithmetic,
              const Result& out, std::int32_t threads);

}  // namespace oarlock::lowp
