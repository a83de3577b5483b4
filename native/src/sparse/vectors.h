// Vectors of float32 with a fused multiply-add where the path has one.
//
// Every sum is one chain of such operations in the order of its terms, so AVX2, AVX-512 and NEON give
// the same bits. The portable path rounds each product too.
#pragma once

#if defined(OARLOCK_PATH_avx512) || defined(OARLOCK_PATH_avx2)
#include <immintrin.h>
#elif defined(OARLOCK_PATH_neon)
#include <arm_neon.h>
#endif

#include "core/kernel.h"

namespace oarlock::OARLOCK_PATH {
namespace {

#if defined(OARLOCK_PATH_avx512)
constexpr int kWidth = 16;
#elif defined(OARLOCK_PATH_avx2)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float floats __attribute__((vector_size(4 * kWidth)));

inline floats read(const float* p) {
  floats x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

inline void write(float* p, floats x) { __builtin_memcpy(p, &x, sizeof x); }

inline floats spread(float x) { return x - floats{}; }

inline floats multiply_add(floats a, floats b, floats c) {
#if defined(OARLOCK_PATH_avx512)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(OARLOCK_PATH_avx2)
  return _mm256_fmadd_ps(a, b, c);
#elif defined(OARLOCK_PATH_neon)
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
