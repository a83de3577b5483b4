// Layers of the networks, for the kernels: products of packed weights with strips or blocks.
#pragma once

#include "atoms/deep_potential_kernels.h"
#include "atoms/deep_potential_vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using atoms::kBlock;
using atoms::kStrip;
using atoms::kTileRows;
using atoms::LayerOf;
using atoms::NetworkOf;

constexpr int64_t kColumns = 2 * kStrip;  // of all matrices here
static_assert(kColumns == kBlock);
constexpr int64_t kDepth = 128;  // of products, so that a part of x stays in the first cache
#if defined(OARLOCK_PATH_avx512) || defined(OARLOCK_PATH_neon)
constexpr int kMostRows = 13;  // whose sums fit into the registers
#else
constexpr int kMostRows = 5;
#endif

// y[r][...] += sum over k of w[k * stride + r] x[k][...], two vectors of columns.
template <typename T, int kRows>
OARLOCK_ALWAYS_INLINE void tile(const T* w, int64_t stride, const T* x, int64_t depth, T* y) {
  vector<T> sums[kRows][2];
#pragma GCC unroll 13
  for (int r = 0; r < kRows; ++r) {
    sums[r][0] = load(y + r * kColumns);
    sums[r][1] = load(y + r * kColumns + lanes<T>);
  }
  for (int64_t k = 0; k < depth; ++k, w += stride, x += kColumns) {
    const vector<T> a = load(x), b = load(x + lanes<T>);
#pragma GCC unroll 13
    for (int r = 0; r < kRows; ++r) {
      const vector<T> factor = fill(w[r]);
      sums[r][0] = multiply_add(factor, a, sums[r][0]);
      sums[r][1] = multiply_add(factor, b, sums[r][1]);
    }
  }
#pragma GCC unroll 13
  for (int r = 0; r < kRows; ++r) {
    store(y + r * kColumns, sums[r][0]);
    store(y + r * kColumns + lanes<T>, sums[r][1]);
  }
}

template <typename T>
inline void tile_of(int64_t rows, const T* w, int64_t stride, const T* x, int64_t depth, T* y) {
  switch (rows) {
    case 1: return tile<T, 1>(w, stride, x, depth, y);
    case 2: return tile<T, 2>(w, stride, x, depth, y);
    case 3: return tile<T, 3>(w, stride, x, depth, y);
    case 4: return tile<T, 4>(w, stride, x, depth, y);
    case 5: return tile<T, 5>(w, stride, x, depth, y);
#if defined(OARLOCK_PATH_avx512) || defined(OARLOCK_PATH_neon)
    case 6: return tile<T, 6>(w, stride, x, depth, y);
    case 7: return tile<T, 7>(w, stride, x, depth, y);
    case 8: return tile<T, 8>(w, stride, x, depth, y);
    case 9: return tile<T, 9>(w, stride, x, depth, y);
    case 10: return tile<T, 10>(w, stride, x, depth, y);
    case 11: return tile<T, 11>(w, stride, x, depth, y);
    case 12: return tile<T, 12>(w, stride, x, depth, y);
    case 13: return tile<T, 13>(w, stride, x, depth, y);
#endif
  }
}

// y += W x; x: [inputs, kColumns], y: [outputs, kColumns].
template <typename T>
inline void multiply(const T* weight, int64_t inputs, int64_t outputs, const T* x, T* y) {
  const int64_t tiles = (outputs + kTileRows - 1) / kTileRows;
  for (int64_t k = 0; k < inputs; k += kDepth) {
    const int64_t depth = inputs - k < kDepth ? inputs - k : kDepth;
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t first = outputs * t / tiles, rows = outputs * (t + 1) / tiles - first;
      const T* const w = weight + inputs * first + k * rows;
      const int64_t parts = (rows + kMostRows - 1) / kMostRows;
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t from = rows * part / parts, to = rows * (part + 1) / parts;
        for (int64_t column = 0; column < kColumns; column += 2 * lanes<T>)
          tile_of(to - from, w + from, rows, x + k * kColumns + column, depth,
                  y + (first + from) * kColumns + column);
      }
    }
  }
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
