// Passes of the power method over a large matrix, row-major, beside thin ones.
//
// Each number has the same operations in the same order on every path: fused chains over the rank,
// along a row chunk by chunk, or down a column. So ranks on other processors take out the same.

#include "codec/bytes.h"
#include "codec/kernels.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using codec::kColumns;
using codec::kPanel;
using codec::kPitch;
using codec::LowRank;

#if defined(OARLOCK_PATH_avx512)
constexpr int kDown = 8, kAcross = 2;  // rows, and registers beside each other, that are summed up at once
#elif defined(OARLOCK_PATH_avx2)
constexpr int kDown = 6, kAcross = 2;
#else
constexpr int kDown = 4, kAcross = 4;
#endif
constexpr int kWide = kAcross * kLanes;
constexpr int kFactors = 4;          // columns of a thin matrix that are summed up at once, with kTall
constexpr int64_t kChunk = 256;      // of a row, while it is in the first cache
constexpr int64_t kTall = 64;        // rows, of which a panel is in the first cache
static_assert(kPanel % kWide == 0 && kChunk % kPanel == 0);

OARLOCK_ALWAYS_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// a b + c, rounded once.
OARLOCK_ALWAYS_INLINE floats fused(floats a, floats b, floats c) {
#if defined(OARLOCK_PATH_portable)
  for (int i = 0; i < kLanes; ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
#else
  return multiply_add(a, b, c);
#endif
}

// Of n elements from `at` on, as many as a register holds.
OARLOCK_ALWAYS_INLINE floats load_some(const float* p, int64_t at, int64_t n) {
  if (at + kLanes <= n) return load_floats(p + at);
  return at < n ? load_part(p + at, n - at) : floats{};
}
OARLOCK_ALWAYS_INLINE void store_some(float* p, int64_t at, int64_t n, floats x) {
  if (at + kLanes <= n) return store_floats(p + at, x);
  if (at < n) store_part(p + at, x, n - at);
}

// products[row] = left[row] right, for kWide columns of a panel; left is [rows][sent].
template <int kRows>
OARLOCK_ALWAYS_INLINE void multiply(const float* left, const float* panel, int sent,
                                    floats (*products)[kAcross]) {
  floats sums[kRows][kAcross] = {};
  for (int k = 0; k < sent; ++k) {
    floats across[kAcross];
    for (int i = 0; i < kAcross; ++i) across[i] = load_floats(panel + k * kPanel + i * kLanes);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      const floats factor = all(left[row * sent + k]);
#pragma GCC unroll 4
      for (int i = 0; i < kAcross; ++i) sums[row][i] = fused(factor, across[i], sums[row][i]);
    }
  }
  for (int row = 0; row < kRows; ++row)
    for (int i = 0; i < kAcross; ++i) products[row][i] = sums[row][i];
}

// Calls body(at, products) for all columns from `begin` to `end`, which is no further than the last.
template <int kRows, typename Body>
OARLOCK_ALWAYS_INLINE void for_products(const float* left, const LowRank& m, int64_t begin,
                                        int64_t end, const Body& body) {
  for (int64_t at = begin; at < end; at += kWide) {
    floats products[kRows][kAcross] = {};
    if (m.sent > 0)
      multiply<kRows>(left, m.right + at / kPanel * kPanel * m.sent + at % kPanel, m.sent, products);
    body(at, products);
  }
}

// sums[row][k] += x[row] onto, for kBeside registers of values of k; onto is [columns][pitch].
template <int kRows, int kBeside>
OARLOCK_ALWAYS_INLINE void project(const float* x, const float* onto, int64_t pitch, int64_t begin,
                                   int64_t end, int64_t columns, float (*sums)[kColumns]) {
  floats found[kRows][kBeside] = {};
  for (int64_t column = begin; column < end; ++column) {
    floats across[kBeside];
    for (int i = 0; i < kBeside; ++i) across[i] = load_floats(onto + column * pitch + i * kLanes);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      const floats factor = all(x[row * columns + column]);
#pragma GCC unroll 4
      for (int i = 0; i < kBeside; ++i) found[row][i] = fused(factor, across[i], found[row][i]);
    }
  }
  for (int row = 0; row < kRows; ++row)
    for (int i = 0; i < kBeside; ++i) {
      float* const to = &sums[row][i * kLanes];
      store_floats(to, load_floats(to) + found[row][i]);
    }
}

template <int kRows>
void take_rows(float* x, const float* gradient, const LowRank& m, const float* left, float* out) {
  float sums[kRows][kColumns] = {};
  const int64_t pitch = codec::pitch_of(m.rank);
  for (int64_t begin = 0; begin < m.columns; begin += kChunk) {
    const int64_t end = least(m.columns, begin + kChunk);
    for_products<kRows>(left, m, begin, end, [&](int64_t from, const floats(*products)[kAcross]) {
      for (int row = 0; row < kRows; ++row)
        for (int i = 0; i < kAcross; ++i) {
          const int64_t first = row * m.columns, at = from + i * kLanes;
          floats here = load_some(x + first, at, m.columns) - products[row][i];
          if (gradient != nullptr) here += load_some(gradient + first, at, m.columns);
          store_some(x + first, at, m.columns, here);
        }
    });
    int64_t k = 0;
    for (; k + kWide <= pitch; k += kWide)
      project<kRows, kAcross>(x, m.onto + k, pitch, begin, end, m.columns,
                              (float(*)[kColumns])&sums[0][k]);
    for (; k < m.rank; k += kLanes)
      project<kRows, 1>(x, m.onto + k, pitch, begin, end, m.columns,
                        (float(*)[kColumns])&sums[0][k]);
  }
  for (int row = 0; row < kRows; ++row)
    for (int k = 0; k < m.rank; ++k) out[row * m.rank + k] = sums[row][k];
}

template <int kRows>
int64_t take_all(float* x, const float* gradient, int64_t row, int64_t rows, const LowRank& m,
                 const float* left, float* out) {
  for (; row + kRows <= rows; row += kRows) {
    const int64_t first = row * m.columns;
    take_rows<kRows>(x + first, gradient == nullptr ? nullptr : gradient + first, m,
                     left + row * m.sent, out + row * m.rank);
  }
  return row;
}

void take(float* x, const float* gradient, int64_t rows, const LowRank& m, const float* left,
          float* out) {
  const int64_t row = take_all<kDown>(x, gradient, 0, rows, m, left, out);
  take_all<1>(x, gradient, row, rows, m, left, out);
}

// out[k][columns] += left^T x, for kCount values of k and kBeside registers of columns.
template <int kCount, int kBeside>
OARLOCK_ALWAYS_INLINE void add_rows(const float* x, int64_t rows, const LowRank& m,
                                    const float* left, int64_t at, float* out) {
  floats sums[kCount][kBeside];
  for (int k = 0; k < kCount; ++k)
    for (int i = 0; i < kBeside; ++i)
      sums[k][i] = load_some(out + k * m.columns, at + i * kLanes, m.columns);
  for (int64_t row = 0; row < rows; ++row) {
    floats here[kBeside];
    for (int i = 0; i < kBeside; ++i)
      here[i] = kBeside > 1 ? load_floats(x + row * m.columns + at + i * kLanes)
                            : load_some(x + row * m.columns, at, m.columns);
#pragma GCC unroll 4
    for (int k = 0; k < kCount; ++k) {
      const floats factor = all(left[row * m.rank + k]);
#pragma GCC unroll 4
      for (int i = 0; i < kBeside; ++i) sums[k][i] = fused(factor, here[i], sums[k][i]);
    }
  }
  for (int k = 0; k < kCount; ++k)
    for (int i = 0; i < kBeside; ++i)
      store_some(out + k * m.columns, at + i * kLanes, m.columns, sums[k][i]);
}

template <int kBeside>
OARLOCK_ALWAYS_INLINE void add_panel(const float* x, int64_t rows, const LowRank& m,
                                     const float* left, int64_t at, float* out) {
  int k = 0;
  for (; k + kFactors <= m.rank; k += kFactors)
    add_rows<kFactors, kBeside>(x, rows, m, left + k, at, out + k * m.columns);
  for (; k < m.rank; ++k) add_rows<1, kBeside>(x, rows, m, left + k, at, out + k * m.columns);
}

void across(const float* x, int64_t rows, const LowRank& m, const float* left, int64_t begin,
            int64_t end, float* out) {
  constexpr int kBeside = kLanes == 8 ? 2 : 4;
  for (int64_t row = 0; row < rows; row += kTall) {
    const float *const here = x + row * m.columns, *const factors = left + row * m.rank;
    const int64_t tall = least(kTall, rows - row);
    int64_t at = begin;
    for (; at + kBeside * kLanes <= end; at += kBeside * kLanes)
      add_panel<kBeside>(here, tall, m, factors, at, out);
    for (; at < end; at += kLanes) add_panel<1>(here, tall, m, factors, at, out);
  }
}

template <int kRows>
int64_t write_rows(const float* left, int64_t row, int64_t rows, const LowRank& m, float* out) {
  for (; row + kRows <= rows; row += kRows)
    for_products<kRows>(
        left + row * m.sent, m, 0, m.columns, [&](int64_t from, const floats(*products)[kAcross]) {
          for (int one = 0; one < kRows; ++one)
            for (int i = 0; i < kAcross; ++i)
              store_some(out + (row + one) * m.columns, from + i * kLanes, m.columns,
                         products[one][i]);
        });
  return row;
}

void product(const float* left, int64_t rows, const LowRank& m, float* out) {
  const int64_t row = write_rows<kDown>(left, 0, rows, m, out);
  write_rows<1>(left, row, rows, m, out);
}

}  // namespace

extern const codec::LowRankKernels codec_low_rank_kernels;
const codec::LowRankKernels codec_low_rank_kernels = {take, across, product};

}  // namespace oarlock::OARLOCK_PATH
