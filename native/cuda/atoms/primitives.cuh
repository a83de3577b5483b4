// Instructions of the products of layers. tests/cuda_on_cpu has another one, which does the same on a CPU.
//
// Tensor cores multiply [16, 8] by [8, 8]. With group = lane / 4 and number = lane % 4, a lane holds
// a: (group, number), (group + 8, number), (group, number + 4), (group + 8, number + 4);
// b: (number, group), (number + 4, group); sums: (group, 2 number), that + 1, and the same 8 rows on.
#pragma once

#include <cstdint>

namespace oarlock::cuda::atoms {

// `count` numbers, in all as many bytes as a copy can have, 4, 8 or 16, from memory to shared memory without a register;
// 0 where they are not valid.
template <int count, typename T>
__device__ void copy_async(T* shared, const T* from, bool valid) {
  constexpr int kBytes = count * static_cast<int>(sizeof(T));
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? kBytes : 0;
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(to), "l"(from), "n"(kBytes),
                 "r"(bytes)
                 : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
// Until at most `open` groups are under way.
template <int open>
__device__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(open) : "memory");
}

template <typename T>
struct Left;
template <typename T>
struct Right;
template <>
struct Left<double> {
  double at[4];
};
template <>
struct Right<double> {
  double at[2];
};

__device__ inline Left<double> left(const double (&x)[4]) { return {{x[0], x[1], x[2], x[3]}}; }
__device__ inline Right<double> right(const double (&x)[2]) { return {{x[0], x[1]}}; }

__device__ inline void multiply_add(double (&sums)[4], const Left<double>& a,
                                    const Right<double>& b) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm("mma.sync.aligned.m16n8k8.row.col.f64.f64.f64.f64 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+d"(sums[0]), "+d"(sums[1]), "+d"(sums[2]), "+d"(sums[3])
      : "d"(a.at[0]), "d"(a.at[1]), "d"(a.at[2]), "d"(a.at[3]), "d"(b.at[0]), "d"(b.at[1]));
#else
  for (int half = 0; half < 2; ++half)
    for (int k = 0; k < 2; ++k)
      asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};\n"
          : "+d"(sums[2 * half]), "+d"(sums[2 * half + 1])
          : "d"(a.at[2 * k + half]), "d"(b.at[k]));
#endif
}

// float32 as two numbers of tensor cores' 11 bits each: three products of them lose 2^-21.
template <>
struct Left<float> {
  std::uint32_t large[4], small[4];
};
template <>
struct Right<float> {
  std::uint32_t large[2], small[2];
};

// Rounded by whole numbers, which is faster than the instruction for it. The lowest 13 bits of the small part are not
// read; what is not a number stays so in it, if not in the large one.
__device__ inline void split(float x, std::uint32_t* large, std::uint32_t* small) {
  *large = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
  *small = __float_as_uint(x - __uint_as_float(*large));
}

__device__ inline Left<float> left(const float (&x)[4]) {
  Left<float> found;
  for (int i = 0; i < 4; ++i) split(x[i], &found.large[i], &found.small[i]);
  return found;
}
__device__ inline Right<float> right(const float (&x)[2]) {
  Right<float> found;
  for (int i = 0; i < 2; ++i) split(x[i], &found.large[i], &found.small[i]);
  return found;
}

__device__ inline void multiply_add_parts(float (&sums)[4], const std::uint32_t (&a)[4],
                                          const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};\n"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void multiply_add(float (&sums)[4], const Left<float>& a, const Right<float>& b) {
  multiply_add_parts(sums, a.small, b.large);
  multiply_add_parts(sums, a.large, b.small);
  multiply_add_parts(sums, a.large, b.large);
}

}  // namespace oarlock::cuda::atoms
