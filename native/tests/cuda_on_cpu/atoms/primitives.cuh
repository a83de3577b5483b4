// In place of native/cuda/atoms/primitives.cuh: the same instructions as PTX's manual describes them.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "cuda_runtime.h"

namespace oarlock::cuda::atoms {

// Copies arrive when they are waited for, and not before.
struct Copy {
  char* to;
  char bytes[16];
  int count;
};
struct Copies {
  std::vector<Copy> open;
  std::deque<std::vector<Copy>> groups;
};
inline Copies& copies() {
  static std::vector<Copies> all(1024);
  return all[cuda_on_cpu::current_thread()];
}
template <int count, typename T>
void copy_async(T* shared, const T* from, bool valid) {
  constexpr int kBytes = count * sizeof(T);
  if (reinterpret_cast<std::uintptr_t>(shared) % kBytes || reinterpret_cast<std::uintptr_t>(from) % kBytes)
    cuda_on_cpu::fail("cp.async of what is not aligned");
  Copy copy{reinterpret_cast<char*>(shared), {}, kBytes};
  if (valid) std::memcpy(copy.bytes, from, kBytes);
  copies().open.push_back(copy);
}
inline void commit_copies() {
  copies().groups.push_back(std::move(copies().open));
  copies().open.clear();
}
template <int open>
void wait_for_copies() {
  auto& groups = copies().groups;
  while (groups.size() > open) {
    for (const Copy& copy : groups.front()) std::memcpy(copy.to, copy.bytes, copy.count);
    groups.pop_front();
  }
}

template <typename T>
struct Left {
  T at[4];
};
template <typename T>
struct Right {
  T at[2];
};
template <typename T>
Left<T> left(const T (&x)[4]) {
  return {{x[0], x[1], x[2], x[3]}};
}
template <typename T>
Right<T> right(const T (&x)[2]) {
  return {{x[0], x[1]}};
}

// The three products of parts of float32 lose less than what they are added up in.
template <typename T>
void multiply_add(T (&sums)[4], const Left<T>& a, const Right<T>& b) {
  struct In {
    T sums[4];
    Left<T> a;
    Right<T> b;
  };
  struct Out {
    T sums[4];
  };
  In in{{sums[0], sums[1], sums[2], sums[3]}, a, b};
  const Out out = cuda_on_cpu::together<Out>(in, [](const In (&all)[32], Out (&results)[32]) {
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        T sum = all[lane].sums[i];
        for (int k = 0; k < 8; ++k)
          sum = std::fma(all[row % 8 * 4 + k % 4].a.at[k / 4 * 2 + row / 8],
                         all[column * 4 + k % 4].b.at[k / 4], sum);
        results[lane].sums[i] = sum;
      }
  });
  for (int i = 0; i < 4; ++i) sums[i] = out.sums[i];
}

}  // namespace oarlock::cuda::atoms
