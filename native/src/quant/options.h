// Options of the entry points; mirrored in oarlock/native/_quant_abi.py.
#pragma once

#include <cstdint>

struct oarlock_quant_matrix {
  std::int64_t inputs, outputs;
  std::int32_t format;  // oarlock::quant::Format
};

struct oarlock_quant_options {
  oarlock_quant_matrix matrix;
  std::int32_t transposed;  // a weight is given as [outputs, inputs]
  std::int32_t accumulate;  // add to what `out` holds
  std::int32_t base;        // leave out instructions that not every processor of the path has
};
