// The Walsh-Hadamard transform of blocks of a row.

#include "lowp/kernels.h"
#include "lowp/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

// Element i of the result is x[i ^ kDistance] + x[i], or - x[i] where i has that bit.
template <int kDistance>
inline floats butterfly(floats x) {
  ints other;
  words signs;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    other[i] = i ^ kDistance;
    signs[i] = i & kDistance ? 0x80000000u : 0u;
  }
  return __builtin_shuffle(x, other) + (floats)((words)x ^ signs);
}

// Within registers.
inline void short_stages(float* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    floats v = load_as<floats>(x + i);
    v = butterfly<1>(v);
    v = butterfly<2>(v);
    if constexpr (kLanes > 4) v = butterfly<4 % kLanes>(v);
    if constexpr (kLanes > 8) v = butterfly<8 % kLanes>(v);
    store_as(x + i, v);
  }
}

inline void stage(float* __restrict x, int64_t n, int64_t distance) {
  for (int64_t i = 0; i < n; i += 2 * distance)
    for (int64_t j = i; j < i + distance; ++j) {
      const float a = x[j], b = x[j + distance];
      x[j] = a + b;
      x[j + distance] = a - b;
    }
}

inline void store(float* out, int64_t i, float x) { out[i] = x; }
inline void store(bfloat16* out, int64_t i, float x) { out[i] = bfloat16(round_nearest(x)); }

template <typename T, typename To>
void transform(const void* data, int64_t n, int64_t block, float* __restrict room, void* result) {
  const T* const x = static_cast<const T*>(data);
  To* const __restrict out = static_cast<To*>(result);
  for (int64_t i = 0; i < n; ++i) room[i] = load(x, i);
  int64_t distance = 1;
  if (block >= kLanes) short_stages(room, n), distance = kLanes;
  for (; distance < block; distance *= 2) stage(room, n, distance);
  const float scale = 1.0f / square_root(float(block));
  for (int64_t i = 0; i < n; ++i) store(out, i, room[i] * scale);
}

}  // namespace

extern const lowp::HadamardKernels lowp_hadamard_kernels;
const lowp::HadamardKernels lowp_hadamard_kernels = {
    {{transform<float, float>, transform<float, bfloat16>},
     {transform<bfloat16, float>, transform<bfloat16, bfloat16>}}};

}  // namespace oarlock::OARLOCK_PATH
