// Values to codes of a format and back, with one scale for a row or one for each column.

#include "lowp/codecs.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using lowp::CodeKernels;
using lowp::Format;

inline float factor(const float& scale, int64_t) { return scale; }
inline float factor(const float* scales, int64_t i) { return scales[i]; }

template <typename T, typename Codec, bool kRandomly, typename Factor>
void store(const void* data, int64_t n, Factor inv, const Random& r, void* codes) {
  const T* const x = static_cast<const T*>(data);
  auto* const __restrict out = static_cast<typename Codec::Code*>(codes);
  const uint32_t key0 = r.key0, key1 = r.key1, first = r.first;
  for (int64_t i = 0; i < n; ++i)
    out[i] = Codec::template code<kRandomly>(
        load(x, i) * factor(inv, i), kRandomly ? random_bits(first + uint32_t(i), key0, key1) : 0u);
}

template <typename Codec, typename Factor>
void read(const void* codes, int64_t n, Factor scale, float* __restrict out) {
  const auto* const x = static_cast<const typename Codec::Code*>(codes);
  for (int64_t i = 0; i < n; ++i) out[i] = Codec::decode(x[i]) * factor(scale, i);
}

template <typename T, bool kRandomly, typename Codec>
constexpr void fill_store(CodeKernels& k, int source, Format format) {
  k.store[source][int(format)][kRandomly] = {store<T, Codec, kRandomly, float>,
                                             store<T, Codec, kRandomly, const float*>};
}

template <typename Codec>
constexpr void fill(CodeKernels& k, Format format) {
  fill_store<float, false, Codec>(k, 0, format);
  fill_store<float, true, Codec>(k, 0, format);
  fill_store<bfloat16, false, Codec>(k, 1, format);
  fill_store<bfloat16, true, Codec>(k, 1, format);
  k.load[int(format)] = {read<Codec, float>, read<Codec, const float*>};
}

constexpr CodeKernels all() {
  CodeKernels k{};
  fill<Fp32>(k, Format::fp32);
  fill<Bf16>(k, Format::bf16);
  fill<Fp16>(k, Format::fp16);
  fill<Int8>(k, Format::int8);
  fill<Int16>(k, Format::int16);
  fill<Fp8E4m3>(k, Format::fp8_e4m3);
  fill<Fp8E5m2>(k, Format::fp8_e5m2);
  return k;
}

}  // namespace

extern const lowp::CodeKernels lowp_code_kernels;
const lowp::CodeKernels lowp_code_kernels = all();

}  // namespace oarlock::OARLOCK_PATH
