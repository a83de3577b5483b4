// Matrices of values and of codes of a format, with scales.
#pragma once

#include "core/tensors.h"
#include "lowp/kernels.h"
#include "lowp/options.h"

namespace oarlock::lowp {

// A matrix to round: scales are [blocks, vectors across the reduction] for formats that have them.
struct Rounding {
  const oarlock_tensor& x;
  const oarlock_lowp_format& format;
  bool along_rows;  // the reduction, which is within rows in memory
  float* scales;    // or null where the format has none
};

// codes <- x
void quantize(const Rounding& r, void* codes, std::int32_t threads);

// out <- the values of the codes that `quantize` would give
void round_values(const Rounding& r, float* out, std::int32_t threads);

// out <- codes times scales
void dequantize(const oarlock_tensor& codes, const oarlock_lowp_format& format, bool along_rows,
                const float* scales, float* out, std::int32_t threads);

}  // namespace oarlock::lowp
