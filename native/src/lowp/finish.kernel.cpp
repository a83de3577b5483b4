// What becomes of a tile of sums: scales, bias, activation.

#include "lowp/activations.h"
#include "lowp/kernels.h"
#include "lowp/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using lowp::Activation;
using lowp::Finish;

template <bool kIntegers>
inline floats numbers(const uint32_t* tile) {
  const words bits = load_as<words>(tile);
  return kIntegers ? __builtin_convertvector((ints)bits, floats) : (floats)bits;
}

// Row `row` of a tile times its scales.
template <bool kIntegers>
inline void scale(const uint32_t* tile, const Finish& f, int row, floats (&x)[kColumnVectors]) {
#pragma GCC unroll 4
  for (int v = 0; v < kColumnVectors; ++v) x[v] = numbers<kIntegers>(tile + v * kLanes);
  if (f.row_scales == nullptr) return;
  const float scale = f.row_scales[row];
#pragma GCC unroll 4
  for (int v = 0; v < kColumnVectors; ++v)
    x[v] = x[v] * load_as<floats>(f.column_scales + v * kLanes) * scale;
}

inline void scaled(const uint32_t* tile, const Finish& f, int row, floats (&x)[kColumnVectors]) {
  f.integers ? scale<true>(tile, f, row, x) : scale<false>(tile, f, row, x);
}

inline void activate(Activation activation, float* __restrict x) {
  switch (activation) {
    case Activation::none: return;
    case Activation::relu:
      for (int j = 0; j < kPanelWidth; ++j) x[j] = relu(x[j]);
      return;
    case Activation::gelu:
      for (int j = 0; j < kPanelWidth; ++j) x[j] = gelu(x[j]);
      return;
    case Activation::silu:
      for (int j = 0; j < kPanelWidth; ++j) x[j] = silu(x[j]);
      return;
  }
}

void flush(const uint32_t* tile, int rows, const Finish& f, bool first, float* __restrict sums) {
  for (int i = 0; i < rows; ++i, tile += kPanelWidth, sums += kPanelWidth) {
    floats x[kColumnVectors];
    scaled(tile, f, i, x);
#pragma GCC unroll 4
    for (int v = 0; v < kColumnVectors; ++v)
      store_as(sums + v * kLanes, first ? x[v] : load_as<floats>(sums + v * kLanes) + x[v]);
  }
}

inline void store(float* out, floats x) { store_as(out, x); }

typedef uint16_t halves __attribute__((vector_size(2 * kLanes)));

inline void store(bfloat16* out, floats x) {
  const words bits = (words)x, magnitude = bits & 0x7fffffffu;
  const words finite = (words)(magnitude < 0x7f800000u), nan = (words)(magnitude > 0x7f800000u);
  const words upper = (bits + ((0x7fffu + ((bits >> 16) & 1u)) & finite)) >> 16;
  store_as(out, __builtin_convertvector(upper | (nan & 0x40u), halves));
}

template <typename T>
void finish(const uint32_t* tile, int rows, int64_t columns, const Finish& f, void* data,
            int64_t stride) {
  for (int i = 0; i < rows; ++i, tile += kPanelWidth) {
    floats x[kColumnVectors];
    scaled(tile, f, i, x);
    if (f.bias != nullptr)
#pragma GCC unroll 4
      for (int v = 0; v < kColumnVectors; ++v) x[v] = x[v] + load_as<floats>(f.bias + v * kLanes);
    if (f.activation != Activation::none) {
      float values[kPanelWidth];
      __builtin_memcpy(values, x, sizeof values);
      activate(f.activation, values);
      __builtin_memcpy(x, values, sizeof values);
    }
    T* const out = static_cast<T*>(data) + i * stride;
    if (columns == kPanelWidth) {
#pragma GCC unroll 4
      for (int v = 0; v < kColumnVectors; ++v) store(out + v * kLanes, x[v]);
    } else {
      T values[kPanelWidth];
      for (int v = 0; v < kColumnVectors; ++v) store(values + v * kLanes, x[v]);
      for (int64_t j = 0; j < columns; ++j) out[j] = values[j];
    }
  }
}

}  // namespace

extern const lowp::FinishKernels lowp_finish_kernels;
const lowp::FinishKernels lowp_finish_kernels = {flush, {finish<float>, finish<bfloat16>}};

}  // namespace oarlock::OARLOCK_PATH
