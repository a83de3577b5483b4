// In place of native/cuda/lowp/primitives.cuh: the same instructions as PTX's manual describes them,
// and complaints where a GPU would be slow or wrong.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "cuda_runtime.h"
#include "lowp/layout.h"

namespace oarlock::cuda::lowp {

inline char* dynamic_shared() { return cuda_on_cpu::dynamic_shared(); }

// Copies arrive when they are waited for, and not before.
struct Copy {
  char* to;
  char bytes[16];
};
struct Copies {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};
inline Copies& copies() {
  static std::vector<Copies> all(1024);
  return all[cuda_on_cpu::current_thread()];
}
inline void copy_async(char* shared, const char* from, bool valid) {
  if (reinterpret_cast<std::uintptr_t>(shared) % 16 || reinterpret_cast<std::uintptr_t>(from) % 16)
    cuda_on_cpu::fail("cp.async of what is not aligned");
  Copy copy{shared, {}};
  if (valid) std::memcpy(copy.bytes, from, 16);
  copies().open.push_back(copy);
}
inline void commit_copies() {
  copies().groups.push_back(std::move(copies().open));
  copies().open.clear();
}
template <int pending>
void wait_for_copies() {
  auto& groups = copies().groups;
  while (groups.size() > pending) {
    for (const Copy& copy : groups.front()) std::memcpy(copy.to, copy.bytes, 16);
    groups.pop_front();
  }
}

struct Registers { std::uint32_t word[4]; };

inline void load_matrices(const char* row, std::uint32_t (&out)[4]) {
  const auto found = cuda_on_cpu::together<Registers>(
      row, [](const char* const (&rows)[32], Registers (&results)[32]) {
        for (int matrix = 0; matrix < 4; ++matrix) {
          unsigned banks = 0;
          for (int i = 0; i < 8; ++i) {
            const auto address = reinterpret_cast<std::uintptr_t>(rows[matrix * 8 + i]);
            if (address % 16) cuda_on_cpu::fail("ldmatrix of what is not aligned");
            banks |= 1u << address / 16 % 8;
          }
          if (banks != 0xff) cuda_on_cpu::fail("ldmatrix with rows in the same banks");
          for (int lane = 0; lane < 32; ++lane)
            std::memcpy(&results[lane].word[matrix], rows[matrix * 8 + lane / 4] + lane % 4 * 4, 4);
        }
      });
  std::memcpy(out, found.word, sizeof out);
}

// Sign, exponent and mantissa as numbers; the largest exponent is Inf and NaN as in IEEE 754, or, of
// e4m3, NaN only where all bits are set.
inline float number(std::uint32_t bits, int exponents, int mantissas, bool ieee) {
  const int fraction = bits & ((1u << mantissas) - 1), top = (1 << exponents) - 1;
  const int exponent = bits >> mantissas & top, bias = top / 2;
  const float sign = bits >> (exponents + mantissas) & 1 ? -1.0f : 1.0f;
  if (exponent == top && ieee) return fraction ? NAN : sign * INFINITY;
  if (exponent == top && fraction == (1 << mantissas) - 1) return NAN;
  if (exponent == 0) return sign * std::ldexp(float(fraction), 1 - bias - mantissas);
  return sign * std::ldexp(float(fraction + (1 << mantissas)), exponent - bias - mantissas);
}

// Element i of a row of registers.
template <Numbers numbers, bool of_b>
float element(const std::uint32_t* words, int i) {
  constexpr bool e5m2 = numbers == (of_b ? Numbers::e4m3_e5m2 : Numbers::e5m2_e4m3);
  if constexpr (numbers == Numbers::bf16 || numbers == Numbers::fp16) {
    const std::uint32_t bits = words[i / 2] >> 16 * (i % 2) & 0xffff;
    return numbers == Numbers::bf16 ? number(bits, 8, 7, true) : number(bits, 5, 10, true);
  } else {
    const std::uint32_t bits = words[i / 4] >> 8 * (i % 4) & 0xff;
    if constexpr (numbers == Numbers::int8 || numbers == Numbers::int16)
      return static_cast<std::int8_t>(bits);
    return e5m2 ? number(bits, 5, 2, true) : number(bits, 4, 3, false);
  }
}

template <Numbers numbers, typename Sum>
void multiply_add(Sum (&sums)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  if (numbers > Numbers::fp16 && cuda_on_cpu::version() < 89)
    cuda_on_cpu::fail("a product of fp8 where there is none");
  struct Given {
    std::uint32_t a[4], b[2];
    Sum c[4];
  } given;
  struct Sums { Sum c[4]; };
  std::memcpy(given.a, a, sizeof a), std::memcpy(given.b, b, sizeof b);
  std::memcpy(given.c, sums, sizeof sums);
  const auto found = cuda_on_cpu::together<Sums>(given, [](const Given (&in)[32], Sums (&out)[32]) {
    constexpr bool wide = numbers == Numbers::bf16 || numbers == Numbers::fp16;
    constexpr int depth = wide ? 16 : 32, per = wide ? 2 : 4;  // elements of a register
    float x[16][depth], y[depth][8];
    for (int lane = 0; lane < 32; ++lane) {
      const int group = lane / 4, thread = lane % 4;
      for (int i = 0; i < 4 * per; ++i) {
        const bool upper = i < per || (i >= 2 * per && i < 3 * per);
        x[upper ? group : group + 8][thread * per + i % per + (i < 2 * per ? 0 : depth / 2)] =
            element<numbers, false>(in[lane].a, i);
      }
      for (int i = 0; i < 2 * per; ++i)
        y[thread * per + i % per + (i < per ? 0 : depth / 2)][group] =
            element<numbers, true>(in[lane].b, i);
    }
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = i < 2 ? lane / 4 : lane / 4 + 8, column = lane % 4 * 2 + i % 2;
        double sum = 0;
        for (int k = 0; k < depth; ++k) sum += double(x[row][k]) * y[k][column];
        if constexpr (std::is_same_v<Sum, float>)
          out[lane].c[i] = static_cast<float>(in[lane].c[i] + sum);
        else
          out[lane].c[i] = static_cast<Sum>(static_cast<std::uint32_t>(in[lane].c[i]) +
                                            static_cast<std::uint32_t>(std::int64_t(sum)));
      }
  });
  std::memcpy(sums, found.c, sizeof sums);
}

inline float2 halves(std::uint32_t word) {
  return {number(word & 0xffff, 5, 10, true), number(word >> 16, 5, 10, true)};
}

inline std::uint32_t two_bfloat16(float low, float high) {
  const auto half = [](float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return std::isnan(x) ? 0x7fffu : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  };
  return half(low) | half(high) << 16;
}

// fp16's bits of two fp8, found by trying all of them.
template <bool e5m2>
std::uint32_t halves_of_fp8(std::uint32_t two) {
  const auto half = [](std::uint32_t bits) {
    const float wanted = e5m2 ? number(bits, 5, 2, true) : number(bits, 4, 3, false);
    const std::uint32_t sign = bits >> 7 << 15;
    for (std::uint32_t h = 0; h < 0x7c01; ++h)
      if (number(h, 5, 10, true) == std::fabs(wanted)) return sign | h;
    return sign | 0x7fffu;
  };
  static const std::vector<std::uint32_t> table = [&] {
    std::vector<std::uint32_t> all(256);
    for (std::uint32_t bits = 0; bits < 256; ++bits) all[bits] = half(bits);
    return all;
  }();
  return table[two & 0xff] | table[two >> 8 & 0xff] << 16;
}

}  // namespace oarlock::cuda::lowp
