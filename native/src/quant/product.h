// Rows times a packed weight.
#pragma once

#include <cstdint>

#include "core/buffer.h"
#include "quant/kernels.h"
#include "quant/layout.h"

namespace oarlock::quant {

struct Matrix {
  const std::uint8_t* packed = nullptr;
  std::int64_t inputs = 0, outputs = 0;
  Format format = Format::fp32;
};

// Where rows are packed; made for as many rows and inputs as there will be.
struct Workspace {
  Workspace() = default;
  Workspace(std::int64_t rows, std::int64_t inputs);

  Buffer<std::uint8_t> packed;
};

// What happens to a product before it is written.
struct Output {
  float* values;             // [rows, stride]
  std::int64_t stride;
  const float* bias = nullptr;  // [outputs]
  bool accumulate = false;      // add to what is there
};

// out = x W + bias. The bits do not depend on the number of rows, nor on threads.
void multiply(const float* x, std::int64_t x_stride, std::int64_t rows, const Matrix& weight,
              const Output& out, Workspace& workspace, bool base, std::int32_t threads);

}  // namespace oarlock::quant
