// Products of small matrices that lie in the cache.
#pragma once

#include "atoms/edge_lanes.h"

namespace oarlock::OARLOCK_PATH {
namespace {

#if defined(OARLOCK_PATH_avx2) || defined(OARLOCK_PATH_portable)
constexpr int kProductRows = 6;
#else
constexpr int kProductRows = 12;
#endif

// How the elements of a matrix that is read one by one lie.
struct Steps {
  int64_t row, depth;
};

template <typename T, int kRows, int kAcross, bool kAdd>
OARLOCK_ALWAYS_INLINE void product_tile(const T* a, Steps steps, const T* b, int64_t b_pitch,
                                        int64_t depth, T* c, int64_t c_pitch) {
  constexpr int kWidth = Lanes<T>::count;
  Vector<T> sums[kRows][kAcross];
#pragma GCC unroll 12
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 2
    for (int v = 0; v < kAcross; ++v)
      sums[row][v] = kAdd ? get(c + row * c_pitch + v * kWidth) : Vector<T>{};
  for (int64_t k = 0; k < depth; ++k) {
    Vector<T> line[kAcross];
#pragma GCC unroll 2
    for (int v = 0; v < kAcross; ++v) line[v] = get(b + k * b_pitch + v * kWidth);
#pragma GCC unroll 12
    for (int row = 0; row < kRows; ++row) {
      const Vector<T> factor = every<T>(a[row * steps.row + k * steps.depth]);
#pragma GCC unroll 2
      for (int v = 0; v < kAcross; ++v) sums[row][v] = multiply_add(factor, line[v], sums[row][v]);
    }
  }
#pragma GCC unroll 12
  for (int row = 0; row < kRows; ++row)
#pragma GCC unroll 2
    for (int v = 0; v < kAcross; ++v) put(c + row * c_pitch + v * kWidth, sums[row][v]);
}

template <typename T, int kAcross, bool kAdd>
void product_columns(const T* a, Steps steps, int64_t rows, const T* b, int64_t b_pitch,
                     int64_t depth, T* c, int64_t c_pitch) {
  int64_t row = 0;
  for (; row + kProductRows <= rows; row += kProductRows)
    product_tile<T, kProductRows, kAcross, kAdd>(a + row * steps.row, steps, b, b_pitch, depth,
                                                 c + row * c_pitch, c_pitch);
  for (; row + 4 <= rows; row += 4)
    product_tile<T, 4, kAcross, kAdd>(a + row * steps.row, steps, b, b_pitch, depth,
                                      c + row * c_pitch, c_pitch);
  for (; row < rows; ++row)
    product_tile<T, 1, kAcross, kAdd>(a + row * steps.row, steps, b, b_pitch, depth,
                                      c + row * c_pitch, c_pitch);
}

// c (+)= a b for `rows` rows; the columns of b and c are padded to whole vectors.
template <typename T, bool kAdd>
void product(const T* a, Steps steps, int64_t rows, const T* b, int64_t b_pitch, int64_t depth,
             T* c, int64_t c_pitch, int64_t columns) {
  constexpr int kWidth = Lanes<T>::count;
  int64_t column = 0;
  for (; column + 2 * kWidth <= columns; column += 2 * kWidth)
    product_columns<T, 2, kAdd>(a, steps, rows, b + column, b_pitch, depth, c + column, c_pitch);
  for (; column < columns; column += kWidth)
    product_columns<T, 1, kAdd>(a, steps, rows, b + column, b_pitch, depth, c + column, c_pitch);
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
