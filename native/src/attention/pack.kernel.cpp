// Copies between memory as the caller has it and the tiles that the kernels compute with.

#include "attention/kernels.h"
#include "attention/vector.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using namespace oarlock::attention;

inline void store(float* p, int64_t i, float x) { p[i] = x; }
inline void store(bfloat16* p, int64_t i, float x) { p[i] = bfloat16(round_nearest(x)); }

template <typename T>
void pack_rows(const Rows& from, int32_t count, int32_t room, int64_t dim, float scale, float* to) {
  const int64_t width = padded(dim);
  for (int32_t row = 0; row < count; ++row, to += width) {
    const T* const data = static_cast<const T*>(from.data) + row * from.stride;
    for (int64_t i = 0; i < dim; ++i) to[i] = load(data, i) * scale;
    for (int64_t i = dim; i < width; ++i) to[i] = 0.0f;
  }
  for (int64_t i = 0; i < (room - count) * width; ++i) to[i] = 0.0f;
}

// Panel by panel, [dim, kPanel] each.
template <typename T>
void pack_panels(const Rows& from, int32_t count, int64_t dim, float* to) {
  for (int32_t first = 0; first < kTileKeys; first += kPanel, to += kPanel * dim)
    for (int32_t key = 0; key < kPanel; ++key) {
      const int32_t row = first + key;
      const T* const data = static_cast<const T*>(from.data) + row * from.stride;
      if (row < count)
        for (int64_t i = 0; i < dim; ++i) to[i * kPanel + key] = load(data, i);
      else
        for (int64_t i = 0; i < dim; ++i) to[i * kPanel + key] = 0.0f;
    }
}

template <typename T>
void unpack(const float* from, const float* factors, float scale, int32_t count, int64_t dim,
            const Rows& to) {
  const int64_t width = padded(dim);
  for (int32_t row = 0; row < count; ++row) {
    T* const data = static_cast<T*>(to.data) + row * to.stride;
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
