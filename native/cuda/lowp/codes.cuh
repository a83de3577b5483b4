// Matrices of values and of codes on a GPU: rounding, reading, and arranging for a product.
#pragma once

#include "core/memory.cuh"
#include "lowp/options.h"
#include "lowp/scales.h"

namespace oarlock::cuda::lowp {

using oarlock::lowp::Depth;
using oarlock::lowp::Format;

// Values, float32 or bfloat16, and how they are rounded.
struct Rounding {
  const oarlock_tensor& x;
  const oarlock_lowp_format& format;
  bool along_rows;        // the reduction, which is within rows in memory
  std::uint64_t operand;  // 0 for a and 1 for b: part of the key of rounding at random
};

// Writes scales [blocks, vectors], and codes in rows of `pitch` bytes, zeros behind the columns;
// `scales` is null for formats without, and for rounding without.
void encode(const Rounding& r, float* scales, void* codes, std::int64_t pitch);

// out, float32, <- codes times scales.
void decode(const void* codes, Format format, std::int64_t rows, std::int64_t columns,
            bool along_rows, const Depth& depth, const float* scales, float* out);

// How a product takes the elements of an operand.
enum class Element { bytes, halves, digits, fp16, floats };
int size_of(Element element);

// packed [vectors, pitch bytes] <- codes [rows, columns], with the reduction contiguous and zeros
// behind it. Of fp8 codes fp16, and of all codes without scales floats, can be taken.
void arrange(const void* codes, Format format, std::int64_t rows, std::int64_t columns,
             bool along_rows, Element element, void* packed, std::int64_t pitch);

std::int64_t code_size(Format format);

}  // namespace oarlock::cuda::lowp
