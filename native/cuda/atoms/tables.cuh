// Features of edges by tables: pieces of degree 5. Source: DP Compress, 2107.02103.
#pragma once

#include "atoms/edges.cuh"

namespace oarlock::cuda::atoms {

constexpr int kLines = 5;  // beside the value: difference, slope, curvature; and the next node's last two
constexpr int kTogether = 4;                    // features of a lane, next to each other
constexpr int kGroup = kTogether * kWarp;       // of a warp
__device__ constexpr int kLine[kLines] = {1, 2, 3, 6, 7};

template <typename T>
struct Table {
  const T* nodes;  // [intervals + 1, 4, pitch]
  T first, inverse_step;
  std::int32_t intervals;
};

template <typename T>
struct alignas(16) Four {
  T at[kTogether];
};

template <typename T>
struct Place {
  std::int64_t node;
  T u;
  bool beyond;
};

template <typename T>
__device__ Place<T> place(const Table<T>& table, T x) {
  const T scaled = (x - table.first) * table.inverse_step;
  const T most = T(table.intervals);
  if (!(scaled <= most * T(1.000001))) return {0, scaled, scaled > most};
  int interval = static_cast<int>(scaled);
  interval = max(0, min(interval, table.intervals - 1));
  return {interval, scaled - T(interval), false};
}

template <typename T>
__device__ void weights_of_values(T u, T* h) {
  const T v = 1 - u, u2 = u * u, v2 = v * v, u3 = u2 * u, v3 = v2 * v;
  h[0] = u3 * (1 + 3 * v + 6 * v2);
  h[1] = v3 * u * (1 + 3 * u);
  h[2] = T(0.5) * v3 * u2;
  h[3] = -u3 * v * (1 + 3 * v);
  h[4] = T(0.5) * u3 * v2;
}

template <typename T>
__device__ void weights_of_slopes(T u, T* h) {
  const T v = 1 - u, u2 = u * u, v2 = v * v;
  h[0] = 30 * u2 * v2;
  h[1] = v2 * (1 - 3 * u) * (1 + 5 * u);
  h[2] = T(0.5) * v2 * u * (2 - 5 * u);
  h[3] = u2 * (1 - 3 * v) * (1 + 5 * v);
  h[4] = T(-0.5) * u2 * v * (2 - 5 * v);
}

template <typename T>
__device__ Four<T> load(const T* from) {
  return *reinterpret_cast<const Four<T>*>(from);
}

}  // namespace oarlock::cuda::atoms
