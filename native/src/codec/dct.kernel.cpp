// Orthonormal cosine transforms of chunks, as products with tables; sums go over inputs in their order.
//
// Even frequencies are alike at both ends of a chunk and odd ones opposite, so that a chunk takes two
// products of half its size: with sums and with differences of what lies opposite. In the middle of an
// odd size odd frequencies are 0.

#include "codec/kernels.h"
#include "core/vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using codec::CosineTables;

// Numbers that a product takes or gives.
constexpr int64_t kMost = codec::kLargestTransform / 2 + kLanes;
constexpr int kTogether = 4;  // chunks that share what is read of the tables

template <int kChunks>
struct Room {
  float at[kChunks][kMost];
};

template <int kChunks, int kRegisters>
OARLOCK_ALWAYS_INLINE void columns(const Room<kChunks>& x, int64_t size, const float* table,
                                   int64_t pitch, int64_t column, Room<kChunks>& out) {
  floats sums[kChunks][kRegisters] = {};
  for (int64_t i = 0; i < size; ++i) {
    floats factors[kRegisters];
    for (int r = 0; r < kRegisters; ++r)
      factors[r] = load_floats(table + i * pitch + column + r * kLanes);
#pragma GCC unroll 4
    for (int c = 0; c < kChunks; ++c)
      for (int r = 0; r < kRegisters; ++r) sums[c][r] += all(x.at[c][i]) * factors[r];
  }
  for (int c = 0; c < kChunks; ++c)
    for (int r = 0; r < kRegisters; ++r) store_floats(out.at[c] + column + r * kLanes, sums[c][r]);
}

// out = x table
template <int kChunks>
void product(const Room<kChunks>& x, int64_t size, const float* table, int64_t pitch,
             Room<kChunks>& out) {
  int64_t column = 0;
  for (; column + 2 * kLanes <= pitch; column += 2 * kLanes)
    columns<kChunks, 2>(x, size, table, pitch, column, out);
  if (column < pitch) columns<kChunks, 1>(x, size, table, pitch, column, out);
}

template <int kChunks>
struct Rooms {
  Room<kChunks> sums{}, differences{}, even{}, odd{};

  void forward(const float* x, const CosineTables& t, float* out) {
    const int64_t half = t.size / 2, middle = t.size - half;
    for (int c = 0; c < kChunks; ++c) {
      const float* const from = x + c * t.size;
      for (int64_t i = 0; i < half; ++i) {
        sums.at[c][i] = from[i] + from[t.size - 1 - i];
        differences.at[c][i] = from[i] - from[t.size - 1 - i];
      }
      if (middle > half) sums.at[c][half] = from[half];
    }
    product(sums, middle, t.even, t.pitch, even);
    product(differences, half, t.odd, t.pitch, odd);
    for (int c = 0; c < kChunks; ++c) {
      float* const to = out + c * t.size;
      for (int64_t i = 0; i < half; ++i) {
        to[2 * i] = even.at[c][i];
        to[2 * i + 1] = odd.at[c][i];
      }
      if (middle > half) to[2 * half] = even.at[c][half];
    }
  }

  void inverse(const float* x, const CosineTables& t, float* out) {
    const int64_t half = t.size / 2, middle = t.size - half;
    for (int c = 0; c < kChunks; ++c) {
      const float* const from = x + c * t.size;
      for (int64_t i = 0; i < half; ++i) {
        even.at[c][i] = from[2 * i];
        odd.at[c][i] = from[2 * i + 1];
      }
      if (middle > half) even.at[c][half] = from[2 * half];
    }
    product(even, middle, t.even, t.pitch, sums);
    product(odd, half, t.odd, t.pitch, differences);
    for (int c = 0; c < kChunks; ++c) {
      float* const to = out + c * t.size;
      for (int64_t i = 0; i < half; ++i) {
        to[i] = sums.at[c][i] + differences.at[c][i];
        to[t.size - 1 - i] = sums.at[c][i] - differences.at[c][i];
      }
      if (middle > half) to[half] = sums.at[c][half];
    }
  }
};

void forward(const float* x, int64_t chunks, const CosineTables& tables, float* out) {
  Rooms<kTogether> several;
  Rooms<1> one;
  int64_t c = 0;
  for (; c + kTogether <= chunks; c += kTogether)
    several.forward(x + c * tables.size, tables, out + c * tables.size);
  for (; c < chunks; ++c) one.forward(x + c * tables.size, tables, out + c * tables.size);
}

void inverse(const float* x, int64_t chunks, const CosineTables& tables, float* out) {
  Rooms<kTogether> several;
  Rooms<1> one;
  int64_t c = 0;
  for (; c + kTogether <= chunks; c += kTogether)
    several.inverse(x + c * tables.size, tables, out + c * tables.size);
  for (; c < chunks; ++c) one.inverse(x + c * tables.size, tables, out + c * tables.size);
}

}  // namespace

extern const codec::CosineKernels codec_cosine_kernels;
const codec::CosineKernels codec_cosine_kernels = {forward, inverse};

}  // namespace oarlock::OARLOCK_PATH
