// What crosses the C ABI for rows and weights in bricks; mirrored in oarlock/native/_quant_cuda_abi.py.
#pragma once

#include <cstdint>

#include "quant/options.h"

// A map of rows: `columns` numbers of each are written.
struct oarlock_cuda_rows {
  std::int64_t rows, columns;
};

struct oarlock_cuda_matmul_options {
  oarlock_quant_matrix matrix;
  std::int64_t rows;
  std::int32_t accumulate;  // add to what `out` holds
};
