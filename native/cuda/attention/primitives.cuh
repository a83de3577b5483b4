// Instructions of attention on tensor cores, besides those of lowp. tests/cuda_on_cpu has another header of this name.
#pragma once

#include <cstdint>

#include "lowp/primitives.cuh"

namespace oarlock::cuda::attention {

// Four matrices of 8 rows of 8 numbers of 16 bits, each transposed; lane i names a row of matrix i / 8.
__device__ inline void load_transposed(const char* row, std::uint32_t (&out)[4]) {
  const auto from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(from)
               : "memory");
}

// 2^x within two units in the last place; zero where that is below 2^-126.
__device__ inline float power_of_two(float x) {
  float out;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
  return out;
}

}  // namespace oarlock::cuda::attention
