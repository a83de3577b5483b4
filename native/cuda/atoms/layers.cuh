// Layers of the fitting networks over atoms of one element, and the way back: products in registers.
#pragma once

#include <cstdint>

#include "atoms/edges.cuh"

namespace oarlock::cuda::atoms {

__device__ inline float hyperbolic_tangent(float x) { return tanhf(x); }
__device__ inline double hyperbolic_tangent(double x) { return tanh(x); }

// out = a b, and what becomes of it. Forward (bias != null): tangents = tanh(out + bias) and
// next = tangents time + shortcut. Back: next = out + shortcut, and where there are tangents they become
// next time (1 - tangents^2), what the layer before goes on with.
template <typename T>
struct Product {
  const T *a, *b;  // [rows, inner], [inner, columns]
  std::int64_t rows;
  std::int32_t inner, columns;
  const T *bias, *time;  // [columns]; time may be null for 1
  T *tangents, *next;    // [rows, columns]
  const T* past;         // of the shortcut: [rows, columns / repeats], back [rows, columns repeats]; or null
  std::int32_t repeats;
};

template <typename T, int kRows_, int kColumns_, int kTall_, int kWide_>
struct Tile {
  static constexpr int kRows = kRows_, kColumns = kColumns_;
  static constexpr int kTall = kTall_, kWide = kWide_;  // of a thread
  static constexpr int kAcross = kColumns / kWide, kThreads = kRows / kTall * kAcross;
  static constexpr int kDepth = 16, kPad = 16 / int(sizeof(T));
};
template <typename T>
using LargeTile = Tile<T, 64, 80, 8, 5>;
template <typename T>
using SmallTile = Tile<T, 32, 32, 4, 2>;

template <typename T>
__device__ void finish(const Product<T>& p, std::int64_t row, int column, T x) {
  const std::int64_t at = row * p.columns + column;
  const T time = p.time != nullptr ? p.time[column] : T(1);
  if (p.bias != nullptr) {
    const T t = hyperbolic_tangent(x + p.bias[column]);
    p.tangents[at] = t;
    const std::int32_t width = p.columns / p.repeats;
    p.next[at] = p.past != nullptr ? fma(t, time, p.past[row * width + column % width]) : t * time;
    return;
  }
  if (p.past != nullptr)
    for (int part = 0; part < p.repeats; ++part)
      x += p.past[(row * p.repeats + part) * p.columns + column];
  p.next[at] = x;
  if (p.tangents == nullptr) return;
  const T t = p.tangents[at];
  p.tangents[at] = x * time * (T(1) - t * t);
}

template <typename T, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 3) multiply(Product<T> p) {
  constexpr int kDepth = Shape::kDepth, kRows = Shape::kRows, kColumns = Shape::kColumns;
  constexpr int kThreads = Shape::kThreads, kTall = Shape::kTall, kWide = Shape::kWide;
  constexpr int kFromA = kRows * kDepth / kThreads, kFromB = kColumns * kDepth / kThreads;
  static_assert(kFromA * kThreads == kRows * kDepth && kFromB * kThreads == kColumns * kDepth);
  __shared__ T a[2][kDepth][kRows + Shape::kPad], b[2][kDepth][kColumns];
  const int thread = threadIdx.x, x = thread % Shape::kAcross, y = thread / Shape::kAcross;
  const std::int64_t first_row = std::int64_t{blockIdx.x} * kRows;
  const int first_column = blockIdx.y * kColumns;
  T from_a[kFromA], from_b[kFromB], sums[kTall][kWide] = {};
  const auto fetch = [&](int depth) {
#pragma unroll
    for (int i = 0; i < kFromA; ++i) {
      const int n = thread + i * kThreads, k = depth + n % kDepth;
      const std::int64_t row = first_row + n / kDepth;
      from_a[i] = row < p.rows && k < p.inner ? p.a[row * p.inner + k] : T(0);
    }
#pragma unroll
    for (int i = 0; i < kFromB; ++i) {
      const int n = thread + i * kThreads, k = depth + n / kColumns;
      const int column = first_column + n % kColumns;
      from_b[i] =
          column < p.columns && k < p.inner ? p.b[std::int64_t{k} * p.columns + column] : T(0);
    }
  };
  const auto put = [&](int side) {
#pragma unroll
    for (int i = 0; i < kFromA; ++i) {
      const int n = thread + i * kThreads;
      a[side][n % kDepth][n / kDepth] = from_a[i];
    }
#pragma unroll
    for (int i = 0; i < kFromB; ++i) {
      const int n = thread + i * kThreads;
      b[side][n / kColumns][n % kColumns] = from_b[i];
    }
  };
  fetch(0);
  put(0);
  __syncthreads();
  int side = 0;
  for (int depth = 0; depth < p.inner; depth += kDepth) {
    const bool more = depth + kDepth < p.inner;
    if (more) fetch(depth + kDepth);
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      T tall[kTall], wide[kWide];
#pragma unroll
      for (int i = 0; i < kTall; ++i) tall[i] = a[side][k][y * kTall + i];
#pragma unroll
      for (int j = 0; j < kWide; ++j) wide[j] = b[side][k][x + j * Shape::kAcross];
#pragma unroll
      for (int i = 0; i < kTall; ++i)
#pragma unroll
        for (int j = 0; j < kWide; ++j) sums[i][j] = fma(tall[i], wide[j], sums[i][j]);
    }
    side ^= 1;
    if (more) put(side);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kTall; ++i)
#pragma unroll
    for (int j = 0; j < kWide; ++j) {
      const std::int64_t row = first_row + y * kTall + i;
      const int column = first_column + x + j * Shape::kAcross;
      if (row < p.rows && column < p.columns) finish(p, row, column, sums[i][j]);
    }
}

// The layer with one output: energies, and where the way back begins. A warp to an atom.
template <typename T>
struct Ending {
  const T *x, *weight, *time;  // [rows, width], [width], [width] of the layer before, or null
  T *tangents, *slopes;        // [rows, width], as of a product that goes back
  std::int64_t rows;
  std::int32_t width;
  T bias;
  double scale, reference;
  const std::int32_t* atoms;
  double* energies;
};

template <typename T>
__global__ void __launch_bounds__(kWarps* kWarp) end(Ending<T> p) {
  const int lane = threadIdx.x % kWarp;
  const std::int64_t row = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (row >= p.rows) return;
  T sum = 0;
  for (int n = lane; n < p.width; n += kWarp) {
    const std::int64_t at = row * p.width + n;
    const T weight = p.weight[n], t = p.tangents[at];
    sum = fma(p.x[at], weight, sum);
    p.slopes[at] = weight;
    p.tangents[at] = weight * (p.time != nullptr ? p.time[n] : T(1)) * (T(1) - t * t);
  }
  sum = sum_of_warp(sum) + p.bias;
  if (lane == 0) p.energies[p.atoms[row]] = double(sum) * p.scale + p.reference;
}

}  // namespace oarlock::cuda::atoms
