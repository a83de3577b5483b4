// Copies between memory as the caller has it and the tiles that the kernels compute with.

#include "attention/kernels.h"
#include "attention/vector.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using namespace oarlock::attention;

inline void store(float* p, int64_t i, float x) { p[i] = x; }
inline void store(bfloat16* p, int64_t i, float x) { p[i] = bfloat16(round_nearest(x)); }

// Rows of one head are far apart, so the processor does not fetch the next ones by itself.
constexpr int kAhead = 8;

template <typename T>
OARLOCK_ALWAYS_INLINE void fetch(const T* row, int64_t dim, int writes) {
  for (int64_t i = 0; i < dim; i += int64_t(64 / sizeof(T)))
    if (writes != 0)
      __builtin_prefetch(row + i, 1);
    else
      __builtin_prefetch(row + i, 0);
}

template <typename T>
void pack_rows(const Rows& from, int32_t count, int32_t room, int64_t dim, float scale, float* to) {
  const int64_t width = padded(dim);
  for (int32_t row = 0; row < count; ++row, to += width) {
    const T* const data = static_cast<const T*>(from.data) + row * from.stride;
    if (row + kAhead < count) fetch(data + kAhead * from.stride, dim, 0);
    for (int64_t i = 0; i < dim; ++i) to[i] = load(data, i) * scale;
    for (int64_t i = dim; i < width; ++i) to[i] = 0.0f;
  }
  for (int64_t i = 0; i < (room - count) * width; ++i) to[i] = 0.0f;
}

// Panel by panel, [dim, kPanel] each.
template <typename T>
void pack_panels(const Rows& from, int32_t count, int64_t dim, float* to) {
  const int64_t whole = dim / kLanes * kLanes;
  for (int32_t first = 0; first < kTileKeys; first += kPanel, to += kPanel * dim)
    for (int32_t beside = 0; beside < kPanel; beside += kLanes) {
      const T* const rows = static_cast<const T*>(from.data) + (first + beside) * from.stride;
      for (int32_t key = 0; key < kLanes && first + beside + kLanes + key < count; ++key)
        fetch(rows + (kLanes + key) * from.stride, dim, 0);
      const int32_t present = count - first - beside;
      for (int64_t i = 0; i < whole; i += kLanes) {
        floats block[kLanes];
#pragma GCC unroll 16
        for (int key = 0; key < kLanes; ++key)
          block[key] = key < present ? load_floats(rows + key * from.stride + i) : floats{};
        transpose(block);
#pragma GCC unroll 16
        for (int column = 0; column < kLanes; ++column)
          store_floats(to + (i + column) * kPanel + beside, block[column]);
      }
      for (int64_t i = whole; i < dim; ++i)
        for (int key = 0; key < kLanes; ++key)
          to[i * kPanel + beside + key] = key < present ? load(rows + key * from.stride, i) : 0.0f;
    }
}

template <typename T>
void unpack(const float* from, const float* factors, float scale, int32_t count, int64_t dim,
            const Rows& to) {
  const int64_t width = padded(dim);
  for (int32_t row = 0; row < count; ++row) {
    T* const data = static_cast<T*>(to.data) + row * to.stride;
    if (row + kAhead < count) fetch(data + kAhead * to.stride, dim, 1);
    const float factor = factors == nullptr ? scale : scale * factors[row];
    for (int64_t i = 0; i < dim; ++i) store(data, i, from[row * width + i] * factor);
  }
}

void row_products(const float* a, const float* b, int32_t count, int64_t dim, float* to) {
  const int64_t width = padded(dim);
  for (int32_t row = 0; row < count; ++row, a += width, b += width) {
    floats sum = floats{};
    for (int64_t i = 0; i < width; i += kLanes)
      sum = multiply_add(load_floats(a + i), load_floats(b + i), sum);
    to[row] = sum_of(sum);
  }
}

}  // namespace

extern const PackKernels attention_pack_kernels;
const PackKernels attention_pack_kernels = {{pack_rows<float>, pack_rows<bfloat16>},
                                            {pack_panels<float>, pack_panels<bfloat16>},
                                            {unpack<float>, unpack<bfloat16>},
                                            row_products};

}  // namespace oarlock::OARLOCK_PATH
