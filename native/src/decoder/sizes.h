// Sizes of a decoder's products, and checks that speak of them.
#pragma once

#include <cstdint>
#include <string>

#include "core/error.h"
#include "decoder/kernels.h"
#include "decoder/options.h"
#include "quant/product.h"

namespace oarlock::decoder {

inline quant::Matrix matrix(const oarlock_decoder_matrix& given) {
  return {static_cast<const std::uint8_t*>(given.packed), given.inputs, given.outputs,
          static_cast<quant::Format>(given.format)};
}

inline void check(bool fits, const std::string& text) {
  if (!fits) throw BadArgument(text);
}

inline bool gated(const oarlock_decoder_model& m) {
  return static_cast<Activation>(m.activation) == Activation::swiglu;
}

inline std::int64_t qkv_width(const oarlock_decoder_model& m) {
  return std::int64_t{m.heads + 2 * m.kv_heads} * m.head_size;
}

inline std::int64_t up_width(const oarlock_decoder_model& m) {
  return std::int64_t{m.intermediate} * (gated(m) ? 2 : 1);
}

}  // namespace oarlock::decoder
