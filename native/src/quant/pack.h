// Weights into panels and back.
#pragma once

#include <cstdint>

#include "quant/layout.h"

namespace oarlock::quant {

// A float32 or bfloat16 matrix: the weight of an input and an output stands at
// input * input_stride + output * output_stride.
struct Source {
  const void* data;
  bool halves;
  std::int64_t input_stride, output_stride;
};

// Codes [outputs, inputs] and scales [outputs, inputs / 32].
struct Codes {
  const std::int8_t* codes;
  const float* scales;
};

// Rounds each group of 32 inputs of an output: int8 to multiples of largest / 127, int4 of -largest / 8,
// where largest has its sign. Throws BadArgument where a weight is not finite or a scale too large for float16.
void pack(const Source& source, std::int64_t inputs, std::int64_t outputs, Format format,
          std::uint8_t* out, std::int32_t threads);

// Puts codes as they are into panels; scales must be float16 numbers. Throws BadArgument otherwise, or where a
// code is not in the format's range.
void pack_codes(const Codes& given, std::int64_t inputs, std::int64_t outputs, Format format,
                std::uint8_t* out, std::int32_t threads);

// The weights of some outputs, each [inputs].
void unpack_output(const std::uint8_t* packed, std::int64_t inputs, std::int64_t output,
                   Format format, float* out);

}  // namespace oarlock::quant
