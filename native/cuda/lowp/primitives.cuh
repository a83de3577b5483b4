// The instructions that CUDA C++ has no words for. tests/cuda_on_cpu has another header of this name.
#pragma once

#include <cstdint>

#include "lowp/layout.h"

namespace oarlock::cuda::lowp {

__device__ inline char* dynamic_shared() {
  extern __shared__ __align__(128) char oarlock_dynamic_shared[];
  return oarlock_dynamic_shared;
}

// 16 bytes into shared memory, in the background; zeros unless `valid`.
__device__ inline void copy_async(char* shared, const char* from, bool valid) {
  const auto to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all but the last `pending` groups of copies of this thread.
template <int pending>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Four matrices of 8 rows of 16 bytes; lane i names a row of matrix i / 8.
__device__ inline void load_matrices(const char* row, std::uint32_t (&out)[4]) {
  const auto from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(from)
               : "memory");
}

// sums += a b, of 16 rows, 8 columns and 32 bytes of the reduction.
template <Numbers numbers, typename Sum>
__device__ inline void multiply_add(Sum (&sums)[4], const std::uint32_t (&a)[4],
                                    const std::uint32_t (&b)[2]) {
#define OARLOCK_MMA(shape, types, constraint)                                                    \
  asm volatile("mma.sync.aligned." shape ".row.col." types                                       \
               " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                \
               : "+" constraint(sums[0]), "+" constraint(sums[1]), "+" constraint(sums[2]),      \
                 "+" constraint(sums[3])                                                         \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
  if constexpr (numbers == Numbers::int8 || numbers == Numbers::int16)
    OARLOCK_MMA("m16n8k32", "s32.s8.s8.s32", "r");
  if constexpr (numbers == Numbers::bf16) OARLOCK_MMA("m16n8k16", "f32.bf16.bf16.f32", "f");
  if constexpr (numbers == Numbers::fp16) OARLOCK_MMA("m16n8k16", "f32.f16.f16.f32", "f");
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
  if constexpr (numbers == Numbers::e4m3_e4m3) OARLOCK_MMA("m16n8k32", "f32.e4m3.e4m3.f32", "f");
  if constexpr (numbers == Numbers::e4m3_e5m2) OARLOCK_MMA("m16n8k32", "f32.e4m3.e5m2.f32", "f");
  if constexpr (numbers == Numbers::e5m2_e4m3) OARLOCK_MMA("m16n8k32", "f32.e5m2.e4m3.f32", "f");
#else
  if constexpr (numbers > Numbers::fp16) __trap();  // the host takes fp16 instead
#endif
#undef OARLOCK_MMA
}

// The two numbers in the halves of a word.
__device__ inline float2 halves(std::uint32_t word) {
  float2 out;
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\ncvt.f32.f16 %0, low;\n"
      "cvt.f32.f16 %1, high;\n}"
      : "=f"(out.x), "=f"(out.y)
      : "r"(word));
  return out;
}

// Two float32 rounded to bfloat16, in a word.
__device__ inline std::uint32_t two_bfloat16(float low, float high) {
  std::uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
  return out;
}

// Two bytes of fp8 as two fp16 in a word, exactly.
template <bool e5m2>
__device__ inline std::uint32_t halves_of_fp8(std::uint32_t two) {
  if constexpr (e5m2) {  // an fp16 without its lower byte
    return (two & 0xffu) << 8 | (two & 0xff00u) << 16;
  } else {
#if __CUDA_ARCH__ >= 890
    std::uint32_t out;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(out) : "h"(static_cast<unsigned short>(two)));
    return out;
#else
    // Sign, and the other bits one place lower than fp16 has them: 2^8 too small.
    const std::uint32_t spread = (two & 0xffu) | (two & 0xff00u) << 8;
    const std::uint32_t bits = (spread & 0x00800080u) << 8 | (spread & 0x007f007fu) << 7;
    std::uint32_t out;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(bits), "r"(0x5c005c00u));
    const std::uint32_t nan = spread & 0x007f007fu;  // that too is one of the numbers above
    if ((nan & 0x7fu) == 0x7fu) out |= 0x00007fffu;
    if ((nan & 0x7f0000u) == 0x7f0000u) out |= 0x7fff0000u;
    return out;
#endif
  }
}

}  // namespace oarlock::cuda::lowp
