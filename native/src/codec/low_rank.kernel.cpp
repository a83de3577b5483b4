// Passes of the power method over a large matrix, row-major, beside thin ones.
//
// Each number has the same operations in the same order on every path: products are chains over the
// rank, sums along a row go to lane i mod 16 and then pairwise, sums down a column go in order.

#include "codec/bytes.h"
#include "codec/kernels.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using codec::kColumns;
using codec::LowRank;

constexpr int kSumLanes = 16, kParts = kSumLanes / kLanes;  // registers of the lanes of a sum
constexpr int kDown = 4, kAcross = 4;   // rows, and columns of thin matrices, that share what is loaded
constexpr int64_t kChunk = 512;         // of a row, while it is in the first cache

OARLOCK_ALWAYS_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Of n elements from `at` on, as many as a register holds.
OARLOCK_ALWAYS_INLINE floats load_some(const float* p, int64_t at, int64_t n) {
  if (at + kLanes <= n) return load_floats(p + at);
  return at < n ? load_part(p + at, n - at) : floats{};
}
OARLOCK_ALWAYS_INLINE void store_some(float* p, int64_t at, int64_t n, floats x) {
  if (at + kLanes <= n) return store_floats(p + at, x);
  if (at < n) store_part(p + at, x, n - at);
}

// products[row] = left[row] right, for the columns from `at` on; left is [rows][rank], right is
// [rank][columns].
template <int kRows>
OARLOCK_ALWAYS_INLINE void multiply(const float* left, const float* right, int rank, int64_t at,
                                    int64_t columns, floats* products) {
  for (int row = 0; row < kRows; ++row) products[row] = floats{};
  for (int k = 0; k < rank; ++k) {
    const floats across = load_some(right + k * columns, at, columns);
#pragma GCC unroll 4
    for (int row = 0; row < kRows; ++row) products[row] += left[row * rank + k] * across;
  }
}

// sums[row][k] += x[row] onto[k] for kCount values of k.
template <int kRows, int kCount>
OARLOCK_ALWAYS_INLINE void project(const float* x, const float* onto, int64_t begin, int64_t end,
                                   int64_t columns, floats (*sums)[kColumns][kParts]) {
  floats found[kRows][kCount][kParts];
  for (int row = 0; row < kRows; ++row)
    for (int k = 0; k < kCount; ++k)
      for (int part = 0; part < kParts; ++part) found[row][k][part] = sums[row][k][part];
  for (int64_t i = begin; i < end; i += kSumLanes)
    for (int part = 0; part < kParts; ++part) {
      const int64_t at = i + part * kLanes;
      floats here[kRows];
      for (int row = 0; row < kRows; ++row) here[row] = load_some(x + row * columns, at, columns);
#pragma GCC unroll 4
      for (int k = 0; k < kCount; ++k) {
        const floats across = load_some(onto + k * columns, at, columns);
#pragma GCC unroll 4
        for (int row = 0; row < kRows; ++row) found[row][k][part] += here[row] * across;
      }
    }
  for (int row = 0; row < kRows; ++row)
    for (int k = 0; k < kCount; ++k)
      for (int part = 0; part < kParts; ++part) sums[row][k][part] = found[row][k][part];
}

OARLOCK_ALWAYS_INLINE float total(const floats* lanes) {
  float sum[kSumLanes];
  __builtin_memcpy(sum, lanes, sizeof sum);
  for (int width = kSumLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) sum[i] += sum[i + width];
  return sum[0];
}

template <int kRows>
void take_rows(float* x, const float* gradient, const LowRank& m, const float* left, float* out) {
  floats sums[kRows][kColumns][kParts];
  for (int row = 0; row < kRows; ++row)
    for (int k = 0; k < m.rank; ++k)
      for (int part = 0; part < kParts; ++part) sums[row][k][part] = floats{};
  for (int64_t begin = 0; begin < m.columns; begin += kChunk) {
    const int64_t end = least(m.columns, begin + kChunk);
    for (int64_t at = begin; at < end; at += kLanes) {
      floats products[kRows];
      multiply<kRows>(left, m.right, m.sent, at, m.columns, products);
      for (int row = 0; row < kRows; ++row) {
        const int64_t first = row * m.columns;
        floats here = load_some(x + first, at, m.columns) - products[row];
        if (gradient != nullptr) here += load_some(gradient + first, at, m.columns);
        store_some(x + first, at, m.columns, here);
      }
    }
    int k = 0;
    for (; k + kAcross <= m.rank; k += kAcross)
      project<kRows, kAcross>(x, m.onto + k * m.columns, begin, end, m.columns,
                              (floats(*)[kColumns][kParts])&sums[0][k]);
    for (; k < m.rank; ++k)
      project<kRows, 1>(x, m.onto + k * m.columns, begin, end, m.columns,
                        (floats(*)[kColumns][kParts])&sums[0][k]);
  }
  for (int row = 0; row < kRows; ++row)
    for (int k = 0; k < m.rank; ++k) out[row * m.rank + k] = total(sums[row][k]);
}

void take(float* x, const float* gradient, int64_t rows, const LowRank& m, const float* left,
          float* out) {
  for (int64_t row = 0; row < rows;) {
    float* const here = x + row * m.columns;
    const float* const add = gradient == nullptr ? nullptr : gradient + row * m.columns;
    if (row + kDown <= rows) {
      take_rows<kDown>(here, add, m, left + row * m.sent, out + row * m.rank);
      row += kDown;
    } else {
      take_rows<1>(here, add, m, left + row * m.sent, out + row * m.rank);
      ++row;
    }
  }
}

template <int kRows>
OARLOCK_ALWAYS_INLINE void add_rows(const float* x, const float* left, const LowRank& m,
                                    int64_t begin, int64_t end, float* out) {
  for (int64_t at = begin; at < end; at += kLanes) {
    floats here[kRows];
    for (int row = 0; row < kRows; ++row) here[row] = load_some(x + row * m.columns, at, m.columns);
    for (int k = 0; k < m.rank; ++k) {
      float* const to = out + k * m.columns;
      floats sum = load_some(to, at, m.columns);
#pragma GCC unroll 4
      for (int row = 0; row < kRows; ++row) sum += left[row * m.rank + k] * here[row];
      store_some(to, at, m.columns, sum);
    }
  }
}

void across(const float* x, int64_t rows, const LowRank& m, const float* left, int64_t begin,
            int64_t end, float* out) {
  int64_t row = 0;
  for (; row + kDown <= rows; row += kDown)
    add_rows<kDown>(x + row * m.columns, left + row * m.rank, m, begin, end, out);
  for (; row < rows; ++row)
    add_rows<1>(x + row * m.columns, left + row * m.rank, m, begin, end, out);
}

template <int kRows>
OARLOCK_ALWAYS_INLINE void write_rows(const float* left, const LowRank& m, float* out) {
  for (int64_t at = 0; at < m.columns; at += kLanes) {
    floats products[kRows];
    multiply<kRows>(left, m.right, m.sent, at, m.columns, products);
    for (int row = 0; row < kRows; ++row)
      store_some(out + row * m.columns, at, m.columns, products[row]);
  }
}

void product(const float* left, int64_t rows, const LowRank& m, float* out) {
  int64_t row = 0;
  for (; row + kDown <= rows; row += kDown)
    write_rows<kDown>(left + row * m.sent, m, out + row * m.columns);
  for (; row < rows; ++row) write_rows<1>(left + row * m.sent, m, out + row * m.columns);
}

}  // namespace

extern const codec::LowRankKernels codec_low_rank_kernels;
const codec::LowRankKernels codec_low_rank_kernels = {take, across, product};

}  // namespace oarlock::OARLOCK_PATH
