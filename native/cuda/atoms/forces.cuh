// Forces of edges to atoms, and the virial: sums in the order of edges, so that bits do not change from call to call.
#pragma once

#include "atoms/edges.cuh"

namespace oarlock::cuda::atoms {

constexpr int kParts = 256, kPartThreads = 128;  // of the virial

__global__ void __launch_bounds__(kWarps* kWarp)
    add_forces(std::int64_t atoms, std::int64_t owned, const std::int32_t* begins,
               const std::int32_t* back, const double* slopes, const double* own, double* forces) {
  const std::int64_t atom = std::int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (atom >= atoms) return;
  const int lane = threadIdx.x % kWarp;
  double sum[3] = {0, 0, 0};
  for (std::int32_t i = begins[atom] + lane; i < begins[atom + 1]; i += kWarp)
    for (int c = 0; c < 3; ++c) sum[c] -= slopes[3 * std::int64_t{back[i]} + c];
  for (int c = 0; c < 3; ++c) {
    const double total = sum_of_warp(sum[c]);
    if (lane == c) forces[3 * atom + c] = total + (atom < owned ? own[12 * atom + c] : 0.0);
  }
}

// The virials of a part of the atoms [kParts, 9].
__global__ void __launch_bounds__(kPartThreads)
    add_virials(std::int64_t owned, const double* own, double* parts) {
  __shared__ double sums[kPartThreads][9];
  const std::int64_t begin = owned * blockIdx.x / kParts, end = owned * (blockIdx.x + 1) / kParts;
  double sum[9] = {};
  for (std::int64_t atom = begin + threadIdx.x; atom < end; atom += kPartThreads)
    for (int i = 0; i < 9; ++i) sum[i] += own[12 * atom + 3 + i];
  for (int i = 0; i < 9; ++i) sums[threadIdx.x][i] = sum[i];
  __syncthreads();
  if (threadIdx.x >= 9) return;
  double total = 0;
  for (int thread = 0; thread < kPartThreads; ++thread) total += sums[thread][threadIdx.x];
  parts[9 * blockIdx.x + threadIdx.x] = total;
}

}  // namespace oarlock::cuda::atoms
