// From values or codes to the elements that products take, along rows or across them.

#include "lowp/codecs.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using lowp::Encoder;
using lowp::Format;
using lowp::PackKernels;
using lowp::Unit;

template <typename T>
uint32_t most_of_row(const void* data, int64_t n) {
  const T* const x = static_cast<const T*>(data);
  uint32_t most = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = to_bits(load(x, i)) & 0x7fffffffu;
    most = bits > most ? bits : most;
  }
  return most;
}

template <typename T>
void most_of_columns(const void* data, int64_t n, uint32_t* __restrict most) {
  const T* const x = static_cast<const T*>(data);
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = to_bits(load(x, i)) & 0x7fffffffu;
    most[i] = bits > most[i] ? bits : most[i];
  }
}

// What a product takes of a format in memory of type T.
template <typename T, typename Codec, bool kRandomly>
struct Value {
  using Element = float;
  static inline float of(const void* x, int64_t i, float inv, uint32_t random) {
    return Codec::template value<kRandomly>(load(static_cast<const T*>(x), i) * inv, random);
  }
};

template <typename T, typename Codec, typename To, bool kRandomly>
struct Code {
  using Element = To;
  static inline To of(const void* x, int64_t i, float inv, uint32_t random) {
    return To(Codec::template code<kRandomly>(load(static_cast<const T*>(x), i) * inv, random));
  }
};

// The same from codes.
template <typename Codec>
struct Decoded {
  using Element = float;
  static inline float of(const void* x, int64_t i, float, uint32_t) {
    return Codec::decode(static_cast<const typename Codec::Code*>(x)[i]);
  }
};

template <typename From, typename To>
struct Kept {
  using Element = To;
  static inline To of(const void* x, int64_t i, float, uint32_t) {
    return To(static_cast<const From*>(x)[i]);
  }
};

template <typename Element, bool kRandomly>
void row(const void* x, int64_t n, float inv, const Random& r, void* data) {
  auto* const __restrict out = static_cast<typename Element::Element*>(data);
  const uint32_t key0 = r.key0, key1 = r.key1, first = r.first;
  for (int64_t i = 0; i < n; ++i)
    out[i] = Element::of(x, i, inv, kRandomly ? random_bits(first + uint32_t(i), key0, key1) : 0u);
}

inline uint32_t bits_of(float x) { return to_bits(x); }
inline uint32_t bits_of(int8_t x) { return uint8_t(x); }
inline uint32_t bits_of(int16_t x) { return uint16_t(x); }
inline uint32_t bits_of(uint16_t x) { return x; }

template <typename Element, bool kRandomly>
void group(const void* const* rows, int64_t n, const float* inv, const Random* random, void* data) {
  constexpr int kSize = sizeof(typename Element::Element), kCount = 4 / kSize;
  uint32_t* const __restrict out = static_cast<uint32_t*>(data);
  const void* x[kCount];
  Random r[kCount] = {};
  for (int t = 0; t < kCount; ++t) x[t] = rows[t];
  if (kRandomly)
    for (int t = 0; t < kCount; ++t) r[t] = random[t];
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits = 0;
#pragma GCC unroll 4
    for (int t = 0; t < kCount; ++t) {
      const uint32_t u =
          kRandomly ? random_bits(r[t].first + uint32_t(i), r[t].key0, r[t].key1) : 0u;
      bits |= bits_of(Element::of(x[t], i, inv[i], u)) << (8 * kSize * t % 32);
    }
    out[i] = bits;
  }
}

template <typename Element, bool kRandomly = false>
constexpr Encoder encoder() {
  return {row<Element, kRandomly>, group<Element, kRandomly>};
}

template <typename T, bool kRandomly>
constexpr void fill(PackKernels& k, int source) {
  const auto set = [&](Format format, Unit unit, const Encoder& encoder) {
    k.encode[source][int(format)][int(unit)][kRandomly] = encoder;
  };
  set(Format::fp32, Unit::floats, encoder<Value<T, Fp32, kRandomly>, kRandomly>());
  set(Format::bf16, Unit::floats, encoder<Value<T, Bf16, kRandomly>, kRandomly>());
  set(Format::bf16, Unit::halves, encoder<Code<T, Bf16, uint16_t, kRandomly>, kRandomly>());
  set(Format::fp16, Unit::floats, encoder<Value<T, Fp16, kRandomly>, kRandomly>());
  set(Format::fp8_e4m3, Unit::floats, encoder<Value<T, Fp8E4m3, kRandomly>, kRandomly>());
  set(Format::fp8_e5m2, Unit::floats, encoder<Value<T, Fp8E5m2, kRandomly>, kRandomly>());
  set(Format::int8, Unit::bytes, encoder<Code<T, Int8, int8_t, kRandomly>, kRandomly>());
  set(Format::int8, Unit::words, encoder<Code<T, Int8, int16_t, kRandomly>, kRandomly>());
  set(Format::int16, Unit::words, encoder<Code<T, Int16, int16_t, kRandomly>, kRandomly>());
}

constexpr PackKernels all() {
  PackKernels k{};
  k.most[0] = {most_of_row<float>, most_of_columns<float>};
  k.most[1] = {most_of_row<bfloat16>, most_of_columns<bfloat16>};
  fill<float, false>(k, 0);
  fill<float, true>(k, 0);
  fill<bfloat16, false>(k, 1);
  fill<bfloat16, true>(k, 1);
  const auto set = [&](Format format, Unit unit, const Encoder& encoder) {
    k.decode[int(format)][int(unit)] = encoder;
  };
  set(Format::fp32, Unit::floats, encoder<Decoded<Fp32>>());
  set(Format::bf16, Unit::floats, encoder<Decoded<Bf16>>());
  set(Format::bf16, Unit::halves, encoder<Kept<uint16_t, uint16_t>>());
  set(Format::fp16, Unit::floats, encoder<Decoded<Fp16>>());
  set(Format::fp8_e4m3, Unit::floats, encoder<Decoded<Fp8E4m3>>());
  set(Format::fp8_e5m2, Unit::floats, encoder<Decoded<Fp8E5m2>>());
  set(Format::int8, Unit::bytes, encoder<Kept<int8_t, int8_t>>());
  set(Format::int8, Unit::words, encoder<Kept<int8_t, int16_t>>());
  set(Format::int16, Unit::words, encoder<Kept<int16_t, int16_t>>());
  return k;
}

}  // namespace

extern const lowp::PackKernels lowp_pack_kernels;
const lowp::PackKernels lowp_pack_kernels = all();

}  // namespace oarlock::OARLOCK_PATH
