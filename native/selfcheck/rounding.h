// Weights in few bits, and the rounding of rows that products with them do, for the checks of quant and decoder.
#pragma once

#include "check.h"
#include "quant/layout.h"
#include "quant/options.h"

extern "C" {
const char* oarlock_last_error();
std::int64_t oarlock_quant_packed_bytes(const oarlock_quant_matrix*);
std::int32_t oarlock_quant_pack(const oarlock_tensors*, const oarlock_tensors*,
                                const oarlock_quant_options*, std::int32_t);
std::int32_t oarlock_quant_unpack(const oarlock_tensors*, const oarlock_tensors*,
                                  const oarlock_tensors*, const oarlock_quant_options*,
                                  std::int32_t);
}

namespace selfcheck {

using oarlock::quant::Format;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

inline const char* const kFormatNames[] = {"fp32", "bf16", "int8", "int4"};

// A packed weight, in memory that begins at a multiple of 64 bytes.
struct Packed {
  std::int64_t inputs, outputs, bytes;
  Format format;
  std::vector<std::uint8_t> memory;
  std::uint8_t* data;

  Packed(std::int64_t inputs, std::int64_t outputs, Format format)
      : inputs(inputs), outputs(outputs), format(format) {
    const oarlock_quant_matrix m = sizes();
    bytes = oarlock_quant_packed_bytes(&m);
    memory.resize(bytes + 64);
    data = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64;
  }
  // weight [inputs, outputs].
  Packed(Floats weight, std::int64_t inputs, std::int64_t outputs, Format format)
      : Packed(inputs, outputs, format) {
    const oarlock_quant_options o{sizes(), 0, 0, 0};
    require(oarlock_quant_pack(One("weight", weight.data(), oarlock::kFloat32, {inputs, outputs}),
                               One("out", data, kUint8, {bytes}), &o, 1) == OARLOCK_OK,
            std::string("quant pack: ") + oarlock_last_error());
  }
  Packed(const Packed&) = delete;
  Packed(Packed&&) = default;

  oarlock_quant_matrix sizes() const { return {inputs, outputs, static_cast<std::int32_t>(format)}; }

  // [outputs, inputs].
  Floats unpacked() const {
    std::vector<std::int64_t> all(outputs);
    for (std::int64_t i = 0; i < outputs; ++i) all[i] = i;
    Floats out(outputs * inputs);
    const oarlock_quant_options o{sizes(), 0, 0, 0};
    require(oarlock_quant_unpack(One("weight", data, kUint8, {bytes}),
                                 One("outputs", all.data(), kInt64, {outputs}),
                                 One("out", out.data(), oarlock::kFloat32, {outputs, inputs}), &o,
                                 1) == OARLOCK_OK,
            std::string("quant unpack: ") + oarlock_last_error());
    return out;
  }
};

// x to int8 with one scale for `count` numbers, as float32 rounds it, and back.
inline void round_group(float* x, std::int64_t count) {
  float largest = 0;
  for (std::int64_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(x[i]));
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f, scale = largest * (1.0f / 127.0f);
  for (std::int64_t i = 0; i < count; ++i) x[i] = std::nearbyint(x[i] * inverse) * scale;
}

// Rows as products with a format take them.
inline Doubles as_taken(Floats x, std::int64_t rows, std::int64_t inputs, Format format) {
  if (oarlock::quant::has_codes(format))
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t k = 0; k < inputs; k += 32)
        round_group(x.data() + r * inputs + k, std::min<std::int64_t>(32, inputs - k));
  return Doubles(x.begin(), x.end());
}

}  // namespace selfcheck
