// Products of up to eight rows: b is read once, 16 bytes at a time. Sums of units of the reduction
// are written and then added in their order, so that equal calls give equal bits.
#pragma once

#include <type_traits>

#include "lowp/multiply.cuh"
#include "lowp/primitives.cuh"

namespace oarlock::cuda::lowp {

template <Weights weights>
using PartOf = std::conditional_t<weights == Weights::int8, std::int32_t, float>;
OARLOCK_MAP int size_of(Weights weights) {
  return weights == Weights::int8 || is_fp8(weights) ? 1 : 2;
}
OARLOCK_MAP int per_vector(Weights weights) { return kVectorBytes / size_of(weights); }

// The two 16-bit numbers of a word of a, or of b where it is not fp8.
template <Weights weights>
__device__ inline float2 two_of(std::uint32_t word) {
  if constexpr (weights == Weights::bf16)
    return make_float2(path::from_bits(word << 16), path::from_bits(word & 0xffff0000u));
  return halves(word);
}

// Two neighbours of a vector of b.
template <Weights weights>
__device__ inline float2 two_of_vector(const std::uint32_t (&words)[4], int pair) {
  if constexpr (is_fp8(weights))
    return halves(halves_of_fp8<weights == Weights::e5m2>(words[pair / 2] >> pair % 2 * 16 &
                                                          0xffffu));
  return two_of<weights>(words[pair]);
}

__device__ inline void load_vector(const char* from, std::uint32_t (&words)[4]) {
  const uint4 vector = *reinterpret_cast<const uint4*>(from);
  words[0] = vector.x, words[1] = vector.y, words[2] = vector.z, words[3] = vector.w;
}

// The reduction is contiguous in b: eight lanes share a column, neighbours in vectors.
constexpr int kFewThreads = 256, kLanesOfColumn = 8;

template <Weights weights, int kRows>
__global__ void __launch_bounds__(kFewThreads)
    sum_along(const __grid_constant__ FewRows p) {
  constexpr int kPer = per_vector(weights);
  using Part = PartOf<weights>;
  const int lane = threadIdx.x % kLanesOfColumn;
  const std::int64_t column =
      (static_cast<std::int64_t>(blockIdx.x) * kFewThreads + threadIdx.x) / kLanesOfColumn;
  const char* const b = p.b + min(column, p.columns - 1) * p.b_pitch;
  const std::int64_t begin = blockIdx.y * p.unit, end = min(begin + p.unit, p.elements);
  Part sums[kRows] = {};
  for (std::int64_t k = begin + lane * kPer; k < end; k += kLanesOfColumn * kPer) {
    std::uint32_t words[4];
    load_vector(b + k * size_of(weights), words);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r >= p.rows) break;
      constexpr int kSize = weights == Weights::int8 ? 1 : 2;
      const char* const a = p.a + r * p.a_pitch + k * kSize;
#pragma unroll
      for (int half = 0; half < (is_fp8(weights) ? 2 : 1); ++half) {
        std::uint32_t of_a[4];
        load_vector(a + half * kVectorBytes, of_a);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if constexpr (weights == Weights::int8) {
            sums[r] = __dp4a(static_cast<int>(words[i]), static_cast<int>(of_a[i]), sums[r]);
          } else {
            const float2 x = two_of<weights>(of_a[i]);
            const float2 y = two_of_vector<weights>(words, half * 4 + i);
            sums[r] = fmaf(x.y, y.y, fmaf(x.x, y.x, sums[r]));
          }
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    for (int width = 1; width < kLanesOfColumn; width *= 2)
      sums[r] += __shfl_xor_sync(0xffffffffu, sums[r], width);
    if (lane == 0 && r < p.rows && column < p.columns)
      static_cast<Part*>(p.parts)[(blockIdx.y * p.rows + r) * p.columns + column] = sums[r];
  }
}

// Rows of b are contiguous: a lane has a vector of columns, and four warps share a unit.
constexpr int kAcrossWarps = 4, kAcrossThreads = kAcrossWarps * kLanes, kRowsAtOnce = 4;

// Byte i of four words becomes word i.
__device__ inline void transpose_bytes(const std::uint32_t (&in)[4], std::uint32_t (&out)[4]) {
  const std::uint32_t low01 = __byte_perm(in[0], in[1], 0x5140);
  const std::uint32_t low23 = __byte_perm(in[2], in[3], 0x5140);
  const std::uint32_t high01 = __byte_perm(in[0], in[1], 0x7362);
  const std::uint32_t high23 = __byte_perm(in[2], in[3], 0x7362);
  out[0] = __byte_perm(low01, low23, 0x5410), out[1] = __byte_perm(low01, low23, 0x7632);
  out[2] = __byte_perm(high01, high23, 0x5410), out[3] = __byte_perm(high01, high23, 0x7632);
}

template <Weights weights, int kRows>
__global__ void __launch_bounds__(kAcrossThreads)
    sum_across(const __grid_constant__ FewRows p) {
  constexpr int kPer = per_vector(weights);
  using Part = PartOf<weights>;
  __shared__ Part shared[kAcrossWarps][kLanes * kPer];
  const int warp = threadIdx.x / kLanes, lane = threadIdx.x % kLanes;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kLanes * kPer;
  const std::int64_t column = first + lane * kPer;
  const std::int64_t begin = blockIdx.y * p.unit, end = min(begin + p.unit, p.elements);
  Part sums[kRows][kPer] = {};
  if (column < p.columns)
    for (std::int64_t k = begin + warp * kRowsAtOnce; k < end; k += kAcrossWarps * kRowsAtOnce) {
      std::uint32_t words[kRowsAtOnce][4] = {};
#pragma unroll
      for (int t = 0; t < kRowsAtOnce; ++t)
        if (k + t < end)
          load_vector(p.b + (k + t) * p.b_pitch + column * size_of(weights), words[t]);
      if constexpr (weights == Weights::int8) {
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          const std::uint32_t in[4] = {words[0][w], words[1][w], words[2][w], words[3][w]};
          std::uint32_t out[4];
          transpose_bytes(in, out);
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            if (r >= p.rows) break;
            const int of_a = *reinterpret_cast<const int*>(p.a + r * p.a_pitch + k);
#pragma unroll
            for (int i = 0; i < 4; ++i)
              sums[r][w * 4 + i] = __dp4a(static_cast<int>(out[i]), of_a, sums[r][w * 4 + i]);
          }
        }
      } else {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (r >= p.rows) break;
          const uint2 of_a = *reinterpret_cast<const uint2*>(p.a + r * p.a_pitch + k * 2);
          const float2 low = two_of<weights>(of_a.x), high = two_of<weights>(of_a.y);
          const float x[kRowsAtOnce] = {low.x, low.y, high.x, high.y};
#pragma unroll
          for (int i = 0; i < kPer / 2; ++i)
#pragma unroll
            for (int t = 0; t < kRowsAtOnce; ++t) {
              const float2 y = two_of_vector<weights>(words[t], i);
              sums[r][2 * i] = fmaf(x[t], y.x, sums[r][2 * i]);
              sums[r][2 * i + 1] = fmaf(x[t], y.y, sums[r][2 * i + 1]);
            }
        }
      }
    }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r >= p.rows) break;
#pragma unroll
    for (int i = 0; i < kPer; ++i) shared[warp][lane * kPer + i] = sums[r][i];
    __syncthreads();
    for (int c = threadIdx.x; c < kLanes * kPer && first + c < p.columns; c += kAcrossThreads) {
      Part sum = shared[0][c];
      for (int w = 1; w < kAcrossWarps; ++w) sum += shared[w][c];
      static_cast<Part*>(p.parts)[(blockIdx.y * p.rows + r) * p.columns + first + c] = sum;
    }
    __syncthreads();
  }
}

// out from the sums of units, of which `of_interval` make an interval.
template <typename Part>
__global__ void __launch_bounds__(kFewThreads)
    finish_units(const Part* parts, std::int64_t units, std::int64_t of_interval,
                 std::int64_t intervals_of_block, const __grid_constant__ Finish f) {
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kFewThreads + threadIdx.x;
  const std::int64_t row = blockIdx.y;
  if (column >= f.columns) return;
  float total = 0;
  Part sum = 0;
  std::int64_t in_interval = 0, interval = 0;
  for (std::int64_t unit = 0; unit < units; ++unit) {
    sum += parts[(unit * f.rows + row) * f.columns + column];
    if (++in_interval < of_interval && unit + 1 < units) continue;
    const float x = f.scaled(sum, interval / intervals_of_block, row, column);
    total = interval == 0 ? x : total + x;
    sum = 0;
    in_interval = 0;
    ++interval;
  }
  f.put(row, column, f.value(total, column));
}

}  // namespace oarlock::cuda::lowp
