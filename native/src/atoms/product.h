// Products of small matrices that lie in the cache.
#pragma once

#include "atoms/edge_lanes.h"

namespace oarlock::OARLOCK_PATH {
namespace {

// Rows and vectors of sums that the registers hold.
#if defined(OARLOCK_PATH_avx2) || defined(OARLOCK_PATH_portable)
constexpr int kTallRows = 6, kFlatRows = 4, kFlatAcross = 3;
#else
constexpr int kTallRows = 12, kFlatRows = 8, kFlatAcross = 3;
#endif

template <typename T, int kStep, int kRows, int kAcross, bool kAdd>
OARLOCK_ALWAYS_INLINE void product_tile(const T* a, int64_t a_pitch, const T* b, int64_t b_pitch,
                                        int64_t depth, T* c, int64_t c_pitch) {
  constexpr int kWidth = Lanes<T>::count;
  Vector<T> sums[kRows][kAcross];
#pragma GCC unroll 12
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 3
    for (int v = 0; v < kAcross; ++v)
      sums[row][v] = kAdd ? get(c + row * c_pitch + v * kWidth) : Vector<T>{};
  for (int64_t k = 0; k < depth; ++k, a += a_pitch, b += b_pitch) {
    Vector<T> line[kAcross];
#pragma GCC unroll 3
    for (int v = 0; v < kAcross; ++v) line[v] = get(b + v * kWidth);
#pragma GCC unroll 12
    for (int row = 0; row < kRows; ++row) {
      const Vector<T> factor = every<T>(a[row * kStep]);
#pragma GCC unroll 3
      for (int v = 0; v < kAcross; ++v) sums[row][v] = multiply_add(factor, line[v], sums[row][v]);
    }
  }
#pragma GCC unroll 12
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 3
    for (int v = 0; v < kAcross; ++v) put(c + row * c_pitch + v * kWidth, sums[row][v]);
}

template <typename T, int kStep, int kMostRows, int kAcross, bool kAdd>
void product_columns(const T* a, int64_t a_pitch, int64_t rows, const T* b, int64_t b_pitch,
                     int64_t depth, T* c, int64_t c_pitch) {
  int64_t row = 0;
  for (; row + kMostRows <= rows; row += kMostRows)
    product_tile<T, kStep, kMostRows, kAcross, kAdd>(a + row * kStep, a_pitch, b, b_pitch, depth,
                                                     c + row * c_pitch, c_pitch);
  for (; row + 4 <= rows; row += 4)
    product_tile<T, kStep, 4, kAcross, kAdd>(a + row * kStep, a_pitch, b, b_pitch, depth,
                                             c + row * c_pitch, c_pitch);
  for (; row < rows; ++row)
    product_tile<T, kStep, 1, kAcross, kAdd>(a + row * kStep, a_pitch, b, b_pitch, depth,
                                             c + row * c_pitch, c_pitch);
}

// c (+)= a b for `rows` rows: c[i][j] = Σ over k < depth of a[k · a_pitch + i · kStep] b[k][j]. The
// columns are whole vectors. That rows of a are a known step apart spares an address for each.
template <typename T, int kStep, bool kAdd>
void product(const T* a, int64_t a_pitch, int64_t rows, const T* b, int64_t b_pitch, int64_t depth,
             T* c, int64_t c_pitch, int64_t columns) {
  constexpr int kWidth = Lanes<T>::count;
  int64_t column = 0;
  if (columns % (2 * kWidth) != 0)
    for (; column + kFlatAcross * kWidth <= columns; column += kFlatAcross * kWidth)
      product_columns<T, kStep, kFlatRows, kFlatAcross, kAdd>(a, a_pitch, rows, b + column, b_pitch,
                                                              depth, c + column, c_pitch);
  for (; column + 2 * kWidth <= columns; column += 2 * kWidth)
    product_columns<T, kStep, kTallRows, 2, kAdd>(a, a_pitch, rows, b + column, b_pitch, depth,
                                                  c + column, c_pitch);
  for (; column < columns; column += kWidth)
    product_columns<T, kStep, kTallRows, 1, kAdd>(a, a_pitch, rows, b + column, b_pitch, depth,
                                                  c + column, c_pitch);
}

template <typename T>
struct LaneNumbers {
  typename Lanes<T>::Bits bits;
  LaneNumbers() {
    for (int k = 0; k < Lanes<T>::count; ++k) bits[k] = k;
  }
};

// out[column][row] = in[row][column]; rows and columns are whole vectors.
template <typename T>
void transpose(const T* in, int64_t in_pitch, int64_t rows, int64_t columns, T* out,
               int64_t out_pitch) {
  constexpr int kWidth = Lanes<T>::count;
  using Bits = typename Lanes<T>::Bits;
  const Bits lanes = LaneNumbers<T>().bits;
  for (int64_t row = 0; row < rows; row += kWidth)
    for (int64_t column = 0; column < columns; column += kWidth) {
      Vector<T> x[kWidth];
#pragma GCC unroll 16
      for (int k = 0; k < kWidth; ++k) x[k] = get(in + (row + k) * in_pitch + column);
#pragma GCC unroll 4
      for (int width = 1; width < kWidth; width *= 2) {
        const Bits odd = (lanes & width) != 0;  // all ones where the lane comes from the other row
        const Bits low = (~odd & lanes) | (odd & (lanes - width + kWidth));
        const Bits high = (~odd & (lanes + width)) | (odd & (lanes + kWidth));
#pragma GCC unroll 16
        for (int k = 0; k < kWidth; ++k)
          if ((k & width) == 0) {
            const Vector<T> a = x[k], b = x[k + width];
            x[k] = __builtin_shuffle(a, b, low);
            x[k + width] = __builtin_shuffle(a, b, high);
          }
      }
#pragma GCC unroll 16
      for (int k = 0; k < kWidth; ++k) put(out + (column + k) * out_pitch + row, x[k]);
    }
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
