// How a weight lies in memory: panels of 32 outputs, each along the inputs in blocks of 64.
//
// A block of integers begins with float16 scales, 32 for each of its two groups of 32 inputs. Codes follow
// without a sign, those of four inputs of an output together, for one output after the other:
// int8 + 128 as bytes; int4 + 8 as half bytes, inputs 4 to 7 of eight in the high halves. Blocks of floats
// hold 32 outputs for each input. What is beyond the last input or output is zero.
#pragma once

#include <stdint.h>

namespace oarlock::quant {

enum class Format : int32_t { fp32, bf16, int8, int4 };
constexpr int kFormats = 4;

constexpr int64_t kWidth = 32;  // outputs of a panel
constexpr int64_t kGroup = 32;  // inputs that share a scale
constexpr int64_t kBlock = 64;
constexpr int64_t kScaleBytes = kBlock / kGroup * kWidth * 2;

constexpr bool has_codes(Format format) { return format == Format::int8 || format == Format::int4; }

constexpr int32_t zero_of(Format format) { return format == Format::int8 ? 128 : 8; }  // of codes

// What a panel is widened to where many rows are multiplied by it.
constexpr Format widened(Format format) {
  return format == Format::int4   ? Format::int8
         : format == Format::bf16 ? Format::fp32
                                  : format;
}

constexpr int64_t block_bytes(Format format) {
  switch (format) {
    case Format::fp32: return kBlock * kWidth * 4;
    case Format::bf16: return kBlock * kWidth * 2;
    case Format::int8: return kScaleBytes + kBlock * kWidth;
    case Format::int4: return kScaleBytes + kBlock * kWidth / 2;
  }
  return 0;
}

constexpr int64_t blocks_of(int64_t inputs) { return (inputs + kBlock - 1) / kBlock; }
constexpr int64_t panels_of(int64_t outputs) { return (outputs + kWidth - 1) / kWidth; }
constexpr int64_t panel_bytes(Format format, int64_t inputs) {
  return blocks_of(inputs) * block_bytes(format);
}

}  // namespace oarlock::quant
