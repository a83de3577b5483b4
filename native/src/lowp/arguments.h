// What the entry points check before any kernel runs.
#pragma once

#include "core/tensors.h"
#include "lowp/options.h"
#include "lowp/scales.h"

namespace oarlock::lowp {

// An operand of a product as it was given.
struct Factor {
  const oarlock_tensors& list;
  const oarlock_tensors* scales;  // null for values that are rounded now
  Format format;
  bool codes, along_rows;
  std::int64_t length, depth;     // vectors, and elements of each along the reduction
  const float* scale_data;
};

// One matrix of values, or of codes of the format where `scaled` or `scales` tells so.
Factor factor(const oarlock_tensors& list, const oarlock_tensors* scales,
              const oarlock_lowp_format& format, bool along_rows, Device device = {});

void check_product(const Factor& a, const Factor& b, const oarlock_lowp_matmul_options& options,
                   const oarlock_tensors* bias, const oarlock_tensors& out, Device device = {});
void check_scales(const Factor& factor, const Depth& depth);

// x -> y of the same shape, with scales of `access` where the format has them, which
// they may lack unless they are needed.
void check_rounding(const oarlock_tensors& x, const oarlock_tensors& y,
                    const oarlock_tensors* scales, const oarlock_lowp_format& format,
                    bool along_rows, bool needs_scales, Access access, Device device = {});
void check_hadamard(const oarlock_tensors& x, const oarlock_tensors& out, std::int64_t block,
                    Device device = {});

// What is common to all: a known format, and a block that it may have.
Format check_format(const char* name, const oarlock_lowp_format& format);

// DLPack's type of the codes of a format.
std::int32_t code_type(Format format);
const char* format_name(Format format);

}  // namespace oarlock::lowp
