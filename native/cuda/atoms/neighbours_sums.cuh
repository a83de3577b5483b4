// Sums over neighbours, features times rows, and the way back to the edges. A warp to an atom, features in lanes.
#pragma once

#include "atoms/tables.cuh"
#include "lowp/primitives.cuh"

namespace oarlock::cuda::atoms {

// Atoms of one element that go through together.
template <typename T>
struct Batch {
  Rows rows;
  const double* positions;
  const std::int32_t* atoms;  // [count]
  std::int64_t count;
  std::int32_t kinds, width, pitch, axis;
  Environment<T> environment;
  const Table<T>* tables;  // [kinds], of this centre
  const T* nothing;        // [kinds, 4, pitch], or null
  const T* sel;            // [kinds]
  T per_neighbour;
  double scale;
  Faults* faults;
  T* sums;         // [count, 4, pitch], later dE/dsums
  T* descriptors;  // [count, width, axis], later their slopes
  double* slopes;  // [edges, 3], dE/dvector
  double* own;     // [owned, 12], the force by an atom's own edges and their virial
};

// What lanes tell each other of an edge.
template <typename T>
struct alignas(16) Forward {
  T row[4], value[6];
  const T* nodes;
};
template <typename T>
struct alignas(16) Backward {
  T row[4], value[6], slope[6];
  const T* nodes;
};

template <typename T>
std::size_t forward_bytes(std::int64_t kinds, std::int64_t pitch) {
  return kWarps * (kWarp * sizeof(Forward<T>) + 4 * pitch * sizeof(T) + (kinds + 3) / 4 * 16);
}
template <typename T>
std::size_t backward_bytes() {
  return kWarps * kWarp * (sizeof(Backward<T>) + 4 * sizeof(T));
}

// One edge to a lane; those within the cut-off are written to `said` one after the other.
template <typename T, typename Said>
__device__ Edge<T> tell(const Batch<T>& batch, std::int64_t atom, std::int64_t e, bool exists,
                        Said* said, unsigned* all) {
  const Edge<T> edge =
      edge_of(batch.rows, batch.positions, batch.environment, atom, e, exists, batch.faults);
  *all = __ballot_sync(0xffffffffu, edge.near);
  if (!edge.near) return edge;
  Said& to = said[place_of(*all)];
  row_of(batch.environment, edge, to.row);
  const Table<T>& table = batch.tables[edge.kind];
  const Place<T> at = place(table, to.row[0]);
  if (at.beyond) atomicMin(&batch.faults->beyond, static_cast<unsigned long long>(atom));
  to.nodes = table.nodes + at.node * 4 * batch.pitch;
  weights_of_values(at.u, to.value);
  if constexpr (sizeof(Said) == sizeof(Backward<T>)) {
    weights_of_slopes(at.u, to.slope);
    for (int b = 0; b < kLines; ++b) to.slope[b] *= table.inverse_step;
  }
  return edge;
}

// Sums and descriptors.
template <typename T>
__global__ void __launch_bounds__(kWarps* kWarp) sum_up(Batch<T> batch) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const std::int64_t number = std::int64_t{blockIdx.x} * kWarps + warp;
  if (number >= batch.count) return;
  char* const shared = lowp::dynamic_shared();
  Forward<T>* const said = reinterpret_cast<Forward<T>*>(shared) + warp * kWarp;
  T* const sums =
      reinterpret_cast<T*>(shared + kWarps * kWarp * sizeof(Forward<T>)) + warp * 4 * batch.pitch;
  int* const counts = reinterpret_cast<int*>(shared + kWarps * kWarp * sizeof(Forward<T>) +
                                             kWarps * 4 * batch.pitch * sizeof(T)) +
                      warp * ((batch.kinds + 3) / 4 * 4);
  const std::int64_t atom = batch.atoms[number];
  const std::int64_t begin = batch.rows.offsets[atom], end = batch.rows.offsets[atom + 1];
  for (int kind = lane; kind < batch.kinds; kind += kWarp) counts[kind] = 0;
  __syncwarp();
  for (int from = 0; from < batch.pitch; from += kGroup) {
    const int feature = from + kTogether * lane;
    T parts[4][kTogether] = {};
    for (std::int64_t first = begin; first < end; first += kWarp) {
      unsigned all;
      const Edge<T> edge = tell(batch, atom, first + lane, first + lane < end, said, &all);
      if (from == 0 && batch.nothing != nullptr)
        for (int kind = 0; kind < batch.kinds; ++kind) {
          const unsigned of_kind = __ballot_sync(0xffffffffu, edge.near && edge.kind == kind);
          if (lane == 0) counts[kind] += __popc(of_kind);
        }
      __syncwarp();
      const int count = __popc(all);
      if (feature < batch.pitch)
#pragma unroll 2
        for (int n = 0; n < count; ++n) {
          const Forward<T>& one = said[n];
          const T* const nodes = one.nodes + feature;
          Four<T> g = load(nodes), lines[kLines];
#pragma unroll
          for (int b = 0; b < kLines; ++b) lines[b] = load(nodes + kLine[b] * batch.pitch);
#pragma unroll
          for (int b = 0; b < kLines; ++b)
#pragma unroll
            for (int k = 0; k < kTogether; ++k) g.at[k] = fma(one.value[b], lines[b].at[k], g.at[k]);
#pragma unroll
          for (int c = 0; c < 4; ++c)
#pragma unroll
            for (int k = 0; k < kTogether; ++k)
              parts[c][k] = fma(g.at[k], one.row[c], parts[c][k]);
        }
      __syncwarp();
    }
    if (feature >= batch.pitch) continue;
    if (batch.nothing != nullptr)
      for (int kind = 0; kind < batch.kinds; ++kind) {
        const T missing = batch.sel[kind] - T(counts[kind]);
        const T* const table = batch.nothing + kind * 4 * batch.pitch + feature;
        for (int c = 0; c < 4; ++c)
          for (int k = 0; k < kTogether; ++k)
            parts[c][k] = fma(missing, table[c * batch.pitch + k], parts[c][k]);
      }
    for (int c = 0; c < 4; ++c)
      for (int k = 0; k < kTogether; ++k)
        sums[c * batch.pitch + feature + k] = parts[c][k] * batch.per_neighbour;
  }
  __syncwarp();
  T* const kept = batch.sums + number * 4 * batch.pitch;
  for (int i = lane; i < 4 * batch.pitch; i += kWarp) kept[i] = sums[i];
  const int axis = batch.axis, products = batch.width * axis;
  T* const descriptors = batch.descriptors + number * products;
  int i = lane / axis, j = lane % axis;
  for (int product = lane; product < products; product += kWarp) {
    T sum = 0;
    for (int c = 0; c < 4; ++c)
      sum = fma(sums[c * batch.pitch + i], sums[c * batch.pitch + j], sum);
    descriptors[product] = sum;
    i += kWarp / axis, j += kWarp % axis;
    if (j >= axis) j -= axis, ++i;
  }
}

constexpr int kDescribeThreads = 128;

template <typename T>
std::size_t describe_bytes(std::int64_t width, std::int64_t pitch, std::int64_t axis) {
  return (width * (axis + 1) + 4 * pitch) * sizeof(T);
}

// dE/dsums, in place of sums, by the slopes of descriptors. A block to an atom.
template <typename T>
__global__ void __launch_bounds__(kDescribeThreads) describe_back(Batch<T> batch) {
  const int axis = batch.axis, width = batch.width, pitch = batch.pitch;
  T* const sums = reinterpret_cast<T*>(lowp::dynamic_shared());  // [4, pitch]
  T* const slopes = sums + 4 * pitch;                            // [width, axis + 1]
  T* const kept = batch.sums + std::int64_t{blockIdx.x} * 4 * pitch;
  const T* const given = batch.descriptors + std::int64_t{blockIdx.x} * width * axis;
  for (int i = threadIdx.x; i < 4 * pitch; i += kDescribeThreads) sums[i] = kept[i];
  for (int n = threadIdx.x; n < width * axis; n += kDescribeThreads)
    slopes[n / axis * (axis + 1) + n % axis] = given[n];
  __syncthreads();
  for (int n = threadIdx.x; n < 4 * pitch; n += kDescribeThreads) {
    const int c = n / pitch, i = n % pitch;
    T sum = 0;
    if (i < width)
      for (int j = 0; j < axis; ++j) sum = fma(slopes[i * (axis + 1) + j], sums[c * pitch + j], sum);
    if (i < axis)
      for (int k = 0; k < width; ++k) sum = fma(slopes[k * (axis + 1) + i], sums[c * pitch + k], sum);
    kept[n] = sum * batch.per_neighbour;
  }
}

// dE/dvectors by dE/dsums; an atom's own force and virial.
template <typename T>
__global__ void __launch_bounds__(kWarps* kWarp) spread(Batch<T> batch) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const std::int64_t number = std::int64_t{blockIdx.x} * kWarps + warp;
  if (number >= batch.count) return;
  char* const shared = lowp::dynamic_shared();
  Backward<T>* const said = reinterpret_cast<Backward<T>*>(shared) + warp * kWarp;
  T* const by_row =
      reinterpret_cast<T*>(shared + kWarps * kWarp * sizeof(Backward<T>)) + warp * 4 * kWarp;
  const std::int64_t atom = batch.atoms[number];
  const std::int64_t begin = batch.rows.offsets[atom], end = batch.rows.offsets[atom + 1];
  double own[12] = {};
  for (std::int64_t first = begin; first < end; first += kWarp) {
    unsigned all;
    const Edge<T> edge = tell(batch, atom, first + lane, first + lane < end, said, &all);
    const int count = __popc(all);
    for (int from = 0; from < batch.pitch; from += kGroup) {
      const int feature = from + kTogether * lane;
      const bool has = feature < batch.pitch;
      Four<T> factors[4] = {};
      if (has)
        for (int c = 0; c < 4; ++c)
          factors[c] = load(batch.sums + number * 4 * batch.pitch + c * batch.pitch + feature);
      __syncwarp();
      for (int n = 0; n < count; ++n) {
        const Backward<T>& one = said[n];
        T parts[4] = {};
        if (has) {
          const T* const nodes = one.nodes + feature;
          Four<T> g = load(nodes), slope = {}, lines[kLines];
#pragma unroll
          for (int b = 0; b < kLines; ++b) lines[b] = load(nodes + kLine[b] * batch.pitch);
#pragma unroll
          for (int b = 0; b < kLines; ++b)
#pragma unroll
            for (int k = 0; k < kTogether; ++k) {
              g.at[k] = fma(one.value[b], lines[b].at[k], g.at[k]);
              slope.at[k] = fma(one.slope[b], lines[b].at[k], slope.at[k]);
            }
          T along = 0;
#pragma unroll
          for (int k = 0; k < kTogether; ++k) {
            T by_feature = 0;
#pragma unroll
            for (int c = 0; c < 4; ++c) {
              parts[c] = fma(g.at[k], factors[c].at[k], parts[c]);
              by_feature = fma(one.row[c], factors[c].at[k], by_feature);
            }
            along = fma(slope.at[k], by_feature, along);
          }
          parts[0] += along;
        }
        // Four totals over lanes: halves of the warp first take two of them, then quarters one.
        const bool upper = lane & 16, second = lane & 8;
        const T a = __shfl_xor_sync(0xffffffffu, upper ? parts[0] : parts[2], 16);
        const T b = __shfl_xor_sync(0xffffffffu, upper ? parts[1] : parts[3], 16);
        const T low = (upper ? parts[2] : parts[0]) + a, high = (upper ? parts[3] : parts[1]) + b;
        T total = (second ? high : low) + __shfl_xor_sync(0xffffffffu, second ? low : high, 8);
        for (int bits = 4; bits > 0; bits /= 2) total += __shfl_xor_sync(0xffffffffu, total, bits);
        if (lane % 8 == 0) {
          T* const to = by_row + 4 * n + lane / 8;
          *to = from == 0 ? total : *to + total;
        }
      }
    }
    __syncwarp();
    if (first + lane < end) {
      double gradient[3] = {0, 0, 0};
      if (edge.near) {
        gradient_of(batch.environment, edge, by_row + 4 * place_of(all), batch.scale, gradient);
        for (int c = 0; c < 3; ++c) {
          own[c] += gradient[c];
          for (int d = 0; d < 3; ++d) own[3 + 3 * c + d] -= gradient[c] * edge.vector[d];
        }
      }
      for (int c = 0; c < 3; ++c) batch.slopes[3 * (first + lane) + c] = gradient[c];
    }
    __syncwarp();
  }
  for (int i = 0; i < 12; ++i) {
    const double sum = sum_of_warp(own[i]);
    if (lane == i) batch.own[12 * atom + i] = sum;
  }
}

}  // namespace oarlock::cuda::atoms
