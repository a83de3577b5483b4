// Products of the columns of tall matrices in float64, in an order that the sizes alone decide.

#include "codec/kernels.h"
#include "codec/lane_sum.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using codec::kColumns;

constexpr int64_t kRows = 64;               // that are widened at a time
constexpr int kAcross = 8, kDown = 4;       // of the sums that registers hold
constexpr int kRegisters = kAcross / kWide > 0 ? kAcross / kWide : 1;
static_assert(kRegisters * kWide == kAcross);

// gram[down...][across...] += products of `rows` rows of x [kRows][pitch].
OARLOCK_ALWAYS_INLINE void tile(const double* x, int64_t rows, int pitch, int down, int across,
                                double* gram) {
  doubles sums[kDown][kRegisters] = {};
  for (int64_t row = 0; row < rows; ++row) {
    const double* const here = x + row * pitch;
    doubles right[kRegisters];
    for (int j = 0; j < kRegisters; ++j) right[j] = load_doubles(here + across + j * kWide);
#pragma GCC unroll 4
    for (int i = 0; i < kDown; ++i)
      for (int j = 0; j < kRegisters; ++j) sums[i][j] += all(here[down + i]) * right[j];
  }
  for (int i = 0; i < kDown; ++i)
    for (int j = 0; j < kRegisters; ++j) {
      double* const to = gram + (down + i) * kColumns + across + j * kWide;
      store_as(to, load_doubles(to) + sums[i][j]);
    }
}

void gram(const float* a, int64_t rows, int columns, double* sums) {
  double x[kRows * kColumns];
  const int pitch = (columns + kAcross - 1) / kAcross * kAcross;
  for (int64_t i = 0; i < kRows * pitch; ++i) x[i] = 0;  // beyond the columns they stay
  for (int64_t begin = 0; begin < rows; begin += kRows) {
    const int64_t count = rows - begin < kRows ? rows - begin : kRows;
    for (int64_t row = 0; row < count; ++row)
      for (int column = 0; column < columns; ++column)
        x[row * pitch + column] = a[(begin + row) * columns + column];
    for (int across = 0; across < columns; across += kAcross)
      for (int down = 0; down < columns && down < across + kAcross; down += kDown)
        tile(x, count, pitch, down, across, sums);
  }
}

// Rows lie in lanes, so that each has the same operations on every path.
void solve(float* a, int64_t rows, int columns, const double* R, const double* inverse) {
  double x[kColumns][kAcross] = {};
  for (int64_t begin = 0; begin < rows; begin += kAcross) {
    const int64_t count = rows - begin < kAcross ? rows - begin : kAcross;
    float* const here = a + begin * columns;
    for (int64_t row = 0; row < count; ++row)
      for (int column = 0; column < columns; ++column) x[column][row] = here[row * columns + column];
    for (int i = 0; i < columns; ++i) {
      doubles done[kRegisters];
      for (int part = 0; part < kRegisters; ++part) {
        done[part] = load_doubles(x[i] + part * kWide) * inverse[i];
        store_as(x[i] + part * kWide, done[part]);
      }
      for (int j = i + 1; j < columns; ++j)
        for (int part = 0; part < kRegisters; ++part) {
          double* const to = x[j] + part * kWide;
          store_as(to, load_doubles(to) - done[part] * R[i * kColumns + j]);
        }
    }
    for (int64_t row = 0; row < count; ++row)
      for (int column = 0; column < columns; ++column)
        here[row * columns + column] = float(x[column][row]);
  }
}

}  // namespace

extern const codec::GramKernels codec_gram_kernels;
const codec::GramKernels codec_gram_kernels = {gram, solve};

}  // namespace oarlock::OARLOCK_PATH
