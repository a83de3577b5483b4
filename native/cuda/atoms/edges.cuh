// Edges of an atom for a warp: vectors and environment rows, an edge to a lane, those within the cut-off together.
#pragma once

#include "atoms/lists.cuh"

namespace oarlock::cuda::atoms {

constexpr double kOverlap = 1e-3;  // Å; closer atoms are a mistake

template <typename T>
struct Environment {
  double cutoff;
  T smooth, inverse_width;
  T mean[4], inverse_deviation[4];
};

// Numbers of atoms where something is wrong, or ~0.
struct Faults {
  unsigned long long overlap, beyond;
};

template <typename T>
struct Edge {
  bool near;
  int kind;
  double vector[3];
  T inverse, unit[3], s, slope;  // s = w / r with the switch w, and its slope
};

__device__ inline float root(float x) { return sqrtf(x); }
__device__ inline double root(double x) { return sqrt(x); }

template <typename T>
__device__ Edge<T> edge_of(const Rows& rows, const double* positions, const Environment<T>& of,
                           std::int64_t atom, std::int64_t e, bool exists, Faults* faults) {
  Edge<T> edge;
  edge.near = false;
  edge.kind = 0;
  if (!exists) return edge;
  const std::int64_t other = rows.neighbours[e];
  double square = 0;
  for (int c = 0; c < 3; ++c) {
    edge.vector[c] = positions[3 * other + c] - positions[3 * atom + c];
    if (rows.shifts != nullptr) edge.vector[c] += rows.shifts[3 * e + c];
    square += edge.vector[c] * edge.vector[c];
  }
  edge.near = !(square >= of.cutoff * of.cutoff);
  if (square < kOverlap * kOverlap)
    atomicMin(&faults->overlap, static_cast<unsigned long long>(atom));
  edge.kind = rows.species[other];
  const T x = T(edge.vector[0]), y = T(edge.vector[1]), z = T(edge.vector[2]);
  const T r = root(fma(x, x, fma(y, y, z * z)));
  edge.inverse = T(1) / r;
  edge.unit[0] = x * edge.inverse;
  edge.unit[1] = y * edge.inverse;
  edge.unit[2] = z * edge.inverse;
  T u = (r - of.smooth) * of.inverse_width;
  u = u < 0 ? T(0) : u > 1 ? T(1) : u;
  const T u2 = u * u;
  const T w = fma(u2 * u, fma(u, fma(u, T(-6), T(15)), T(-10)), T(1));
  const T falls = u2 * fma(u, fma(u, T(-30), T(60)), T(-30)) * of.inverse_width;
  edge.s = w * edge.inverse;
  edge.slope = (falls - edge.s) * edge.inverse;
  return edge;
}

template <typename T>
__device__ void row_of(const Environment<T>& of, const Edge<T>& edge, T (&row)[4]) {
  row[0] = (edge.s - of.mean[0]) * of.inverse_deviation[0];
  for (int c = 1; c < 4; ++c)
    row[c] = (edge.s * edge.unit[c - 1] - of.mean[c]) * of.inverse_deviation[c];
}

// dE/dvector from dE/drow.
template <typename T>
__device__ void gradient_of(const Environment<T>& of, const Edge<T>& edge, const T* by_row,
                            double scale, double (&gradient)[3]) {
  T q[4];
  for (int c = 0; c < 4; ++c) q[c] = by_row[c] * of.inverse_deviation[c];
  const T along = fma(q[1], edge.unit[0], fma(q[2], edge.unit[1], q[3] * edge.unit[2]));
  const T across = edge.s * edge.inverse;
  const T radially = fma(q[0] + along, edge.slope, -across * along);
  for (int c = 0; c < 3; ++c)
    gradient[c] = double(fma(edge.unit[c], radially, across * q[c + 1])) * scale;
}

// How many lanes below have it; `all`: lanes that have.
__device__ inline int place_of(unsigned all) {
  return __popc(all & ((1u << threadIdx.x % kWarp) - 1));
}

template <typename T>
__device__ T sum_of_warp(T x) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) x += __shfl_xor_sync(0xffffffffu, x, bits);
  return x;
}

}  // namespace oarlock::cuda::atoms
