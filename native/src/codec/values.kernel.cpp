// Accumulating gradients, and codes that are the upper half of a float32.

#include "codec/kernels.h"
#include "core/kernel.h"

namespace oarlock::OARLOCK_PATH {
namespace {

template <typename G>
void accumulate(float* __restrict x, const void* gradient, int64_t n, float scale, float decay) {
  const G* __restrict g = static_cast<const G*>(gradient);
  for (int64_t i = 0; i < n; ++i) x[i] = decay * x[i] + scale * load(g, i);
}

template <bool kKeep>
void bf16_encode(float* __restrict x, int64_t n, uint16_t* __restrict code) {
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t rounded = round_nearest(x[i]);
    code[i] = rounded;
    if (kKeep) x[i] = x[i] - from_bits(uint32_t(rounded) << 16);
  }
}

void bf16_add(const uint16_t* __restrict code, int64_t n, float weight, float* __restrict out) {
  for (int64_t i = 0; i < n; ++i) out[i] = out[i] + weight * from_bits(uint32_t(code[i]) << 16);
}

}  // namespace

extern const codec::ValueKernels codec_value_kernels;
const codec::ValueKernels codec_value_kernels = {
    {accumulate<float>, accumulate<bfloat16>},
    {bf16_encode<false>, bf16_encode<true>},
    bf16_add,
};

}  // namespace oarlock::OARLOCK_PATH
