// Layers of the fitting networks over atoms of one element, and the way back: products by tensor cores.
#pragma once

#include <cstdint>

#include "atoms/edges.cuh"
#include "atoms/primitives.cuh"
#include "lowp/primitives.cuh"

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

// kDown x kAcross warps, each of kTall products of 16 rows by kWide of 8 columns. Strides are such that what lanes of
// a warp read lies in different banks.
template <typename T, int kDown, int kAcross_, int kTall_, int kWide_, int kBlocks_>
struct Tile {
  static constexpr int kBlocks = kBlocks_;  // that a processor should hold
  static constexpr int kTall = kTall_, kWide = kWide_, kAcross = kAcross_;
  static constexpr int kRows = kDown * kTall * 16, kColumns = kAcross * kWide * 8;
  static constexpr int kThreads = kDown * kAcross * kWarp;
  static constexpr int kDepth = 16, kStages = 3;
  static constexpr int kStrideA = kDepth + 4, kStrideB = kColumns + (sizeof(T) == 8 ? 4 : 8);
  static constexpr int kStage = kRows * kStrideA + kDepth * kStrideB;
  static constexpr std::size_t kBytes = kStages * kStage * sizeof(T);
};
template <typename T>
using LargeTile = Tile<T, 4, 2, 2, 5, 2>;
template <typename T>
using SmallTile = Tile<T, 2, 2, 1, 2, 4>;

// Numbers next to each other that are read and written together.
template <typename T, int count>
struct alignas(count * sizeof(T)) Some {
  T at[count];
};
template <int count, typename T>
__device__ Some<T, count>& some(T* at) {
  return *reinterpret_cast<Some<T, count>*>(at);
}
template <int count, typename T>
__device__ Some<T, count> some(const T* at, T otherwise) {
  if (at != nullptr) return *reinterpret_cast<const Some<T, count>*>(at);
  Some<T, count> found;
  for (T& one : found.at) one = otherwise;
  return found;
}

// What becomes of `count` columns of some rows.
template <typename T, int count>
class Finish {
 public:
  __device__ Finish(const Product<T>& p, int column)
      : p_(p), column_(column),
        time_(some<count>(p.time != nullptr ? p.time + column : nullptr, T(1))),
        bias_(some<count>(p.bias != nullptr ? p.bias + column : nullptr, T(0))) {
    if (p.bias == nullptr || p.past == nullptr) return;
    width_ = p.columns / p.repeats;
    past_ = column < width_ ? column : column - width_;
  }
  __device__ void operator()(std::int64_t row, const T* sums) const {
    const std::int64_t at = row * p_.columns + column_;
    Some<T, count> next, tangents;
    if (p_.bias != nullptr) {
      const auto past =
          some<count>(p_.past != nullptr ? p_.past + row * width_ + past_ : nullptr, T(0));
      for (int n = 0; n < count; ++n) {
        tangents.at[n] = hyperbolic_tangent(sums[n] + bias_.at[n]);
        next.at[n] = fma(tangents.at[n], time_.at[n], past.at[n]);
      }
      some<count>(p_.tangents + at) = tangents;
      some<count>(p_.next + at) = next;
      return;
    }
    for (int n = 0; n < count; ++n) next.at[n] = sums[n];
    if (p_.past != nullptr)
      for (int part = 0; part < p_.repeats; ++part) {
        const auto past =
            some<count>(p_.past + (row * p_.repeats + part) * p_.columns + column_, T(0));
        for (int n = 0; n < count; ++n) next.at[n] += past.at[n];
      }
    some<count>(p_.next + at) = next;
    if (p_.tangents == nullptr) return;
    tangents = some<count>(p_.tangents + at);
    for (int n = 0; n < count; ++n)
      tangents.at[n] = next.at[n] * time_.at[n] * (T(1) - tangents.at[n] * tangents.at[n]);
    some<count>(p_.tangents + at) = tangents;
  }

 private:
  const Product<T>& p_;
  int column_, width_ = 0, past_ = 0;
  Some<T, count> time_, bias_;
};

// Copies of kCopy numbers, which divides what the product sums over and the columns.
template <typename T, typename Shape, int kCopy>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks) multiply(Product<T> p) {
  constexpr int kDepth = Shape::kDepth, kStages = Shape::kStages, kThreads = Shape::kThreads;
  constexpr int kTall = Shape::kTall, kWide = Shape::kWide;
  constexpr int kStrideA = Shape::kStrideA, kStrideB = Shape::kStrideB;
  constexpr int kFromA = Shape::kRows * kDepth / kCopy, kFromB = Shape::kColumns * kDepth / kCopy;
  T* const shared = reinterpret_cast<T*>(lowp::dynamic_shared());
  const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
  const int group = lane / 4, number = lane % 4;
  const int across = (p.columns + Shape::kColumns - 1) / Shape::kColumns;
  const std::int64_t first_row = std::int64_t{blockIdx.x / across} * Shape::kRows;
  const int first_column = static_cast<int>(blockIdx.x % across) * Shape::kColumns;
  const auto fetch = [&](int step) {
    const int depth = step * kDepth;
    if (depth < p.inner) {
      T* const a = shared + step % kStages * Shape::kStage;
      T* const b = a + Shape::kRows * kStrideA;
#pragma unroll
      for (int n = thread; n < kFromA; n += kThreads) {
        const int k = n % (kDepth / kCopy) * kCopy, of = n / (kDepth / kCopy);
        const bool valid = first_row + of < p.rows && depth + k < p.inner;
        copy_async<kCopy>(a + of * kStrideA + k,
                          valid ? p.a + (first_row + of) * p.inner + depth + k : p.a, valid);
      }
#pragma unroll
      for (int n = thread; n < kFromB; n += kThreads) {
        const int k = n / (Shape::kColumns / kCopy), of = n % (Shape::kColumns / kCopy) * kCopy;
        const bool valid = first_column + of < p.columns && depth + k < p.inner;
        copy_async<kCopy>(
            b + k * kStrideB + of,
            valid ? p.b + std::int64_t{depth + k} * p.columns + first_column + of : p.b, valid);
      }
    }
    commit_copies();
  };
  T sums[kTall][kWide][4] = {};
  const int steps = (p.inner + kDepth - 1) / kDepth;
  const int row = warp / Shape::kAcross * kTall * 16 + group;
  const int column = warp % Shape::kAcross * kWide * 8;
  for (int step = 0; step < kStages - 1; ++step) fetch(step);
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<kStages - 2>();
    __syncthreads();
    fetch(step + kStages - 1);
    const T* const a = shared + step % kStages * Shape::kStage + row * kStrideA + number;
    const T* const b = shared + step % kStages * Shape::kStage + Shape::kRows * kStrideA +
                       number * kStrideB + column + group;
    // Tensor cores cut sums of float32 off where others round: only few terms are added up by them.
    constexpr bool kApart = sizeof(T) == 4;
    T parts[kApart ? kTall : 1][kApart ? kWide : 1][4] = {};
#pragma unroll
    for (int k = 0; k < kDepth; k += 8) {
      Left<T> lefts[kTall];
      Right<T> rights[kWide];
#pragma unroll
      for (int i = 0; i < kTall; ++i) {
        const T* const at = a + i * 16 * kStrideA + k;
        const T x[4] = {at[0], at[8 * kStrideA], at[4], at[8 * kStrideA + 4]};
        lefts[i] = left(x);
      }
#pragma unroll
      for (int j = 0; j < kWide; ++j) {
        const T x[2] = {b[k * kStrideB + 8 * j], b[(k + 4) * kStrideB + 8 * j]};
        rights[j] = right(x);
      }
#pragma unroll
      for (int i = 0; i < kTall; ++i)
#pragma unroll
        for (int j = 0; j < kWide; ++j)
          multiply_add(kApart ? parts[kApart ? i : 0][kApart ? j : 0] : sums[i][j], lefts[i], rights[j]);
    }
    if constexpr (kApart)
#pragma unroll
      for (int i = 0; i < kTall; ++i)
#pragma unroll
        for (int j = 0; j < kWide; ++j)
#pragma unroll
          for (int n = 0; n < 4; ++n) sums[i][j][n] += parts[i][j][n];
  }
  wait_for_copies<0>();
  constexpr int kTogether = kCopy > 1 ? 2 : 1;
#pragma unroll
  for (int j = 0; j < kWide; ++j)
#pragma unroll
    for (int n = 0; n < 2; n += kTogether) {
      const int to_column = first_column + column + j * 8 + number * 2 + n;
      if (to_column >= p.columns) continue;
      const Finish<T, kTogether> finish(p, to_column);
#pragma unroll
      for (int i = 0; i < 2 * kTall; ++i) {
        const std::int64_t to_row = first_row + row + i * 8;
        if (to_row < p.rows) finish(to_row, sums[i / 2][j] + i % 2 * 2 + n);
      }
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
