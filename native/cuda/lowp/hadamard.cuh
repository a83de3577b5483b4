// The Walsh-Hadamard transform of blocks of a row, each in shared memory.
#pragma once

#include <cstdint>

#include "core/kernel.h"
#include "lowp/primitives.cuh"

namespace oarlock::cuda::lowp {

constexpr int kTransformThreads = 256;
constexpr std::int64_t kMostOfTransform = 8192;  // elements, in 32 KiB

// In the CPU's order: pairs at distance 1, 2, 4, ...
__global__ void __launch_bounds__(kTransformThreads)
    hadamard(const void* data, void* out, bool narrow, bool narrow_out, std::int64_t blocks,
             int size) {
  float* const x = reinterpret_cast<float*>(dynamic_shared());
  const float scale = 1.0f / path::square_root(static_cast<float>(size));
  for (std::int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    for (int i = threadIdx.x; i < size; i += kTransformThreads)
      x[i] = narrow ? path::load(static_cast<const path::bfloat16*>(data), block * size + i)
                    : path::load(static_cast<const float*>(data), block * size + i);
    for (int distance = 1; distance < size; distance *= 2) {
      __syncthreads();
      for (int pair = threadIdx.x; pair < size / 2; pair += kTransformThreads) {
        const int i = pair / distance * 2 * distance + pair % distance;
        const float a = x[i], b = x[i + distance];
        x[i] = a + b;
        x[i + distance] = a - b;
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < size; i += kTransformThreads) {
      const float y = x[i] * scale;
      if (narrow_out)
        static_cast<std::uint16_t*>(out)[block * size + i] = path::round_nearest(y);
      else
        static_cast<float*>(out)[block * size + i] = y;
    }
    __syncthreads();
  }
}

}  // namespace oarlock::cuda::lowp
