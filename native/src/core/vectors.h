// The registers of a code path, for sources named *.kernel.cpp: one text for all paths.
//
// A sum that is one chain of multiply_add in the order of its terms has the same bits on AVX2, AVX-512
// and NEON. The portable path rounds each product too.
#pragma once

#if defined(OARLOCK_PATH_avx512) || defined(OARLOCK_PATH_avx2)
#include <immintrin.h>
#elif defined(OARLOCK_PATH_neon)
#include <arm_neon.h>
#endif

#include "core/kernel.h"

#define OARLOCK_ALWAYS_INLINE inline __attribute__((always_inline))

namespace oarlock::OARLOCK_PATH {
namespace {

// Floats in a register.
#if defined(OARLOCK_PATH_avx512)
constexpr int kLanes = 16;
#elif defined(OARLOCK_PATH_avx2)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t words __attribute__((vector_size(4 * kLanes)));

template <typename Vector, typename T>
OARLOCK_ALWAYS_INLINE Vector load_as(const T* p) {
  Vector x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

template <typename Vector, typename T>
OARLOCK_ALWAYS_INLINE void store_as(T* p, const Vector& x) {
  __builtin_memcpy(p, &x, sizeof x);
}

OARLOCK_ALWAYS_INLINE floats load_floats(const float* p) { return load_as<floats>(p); }
OARLOCK_ALWAYS_INLINE void store_floats(float* p, floats x) { store_as(p, x); }
OARLOCK_ALWAYS_INLINE floats all(float x) { return x - floats{}; }
OARLOCK_ALWAYS_INLINE ints all(int32_t x) { return x - ints{}; }
OARLOCK_ALWAYS_INLINE words all(uint32_t x) { return x - words{}; }

// a b + c, rounded once where the path has such an instruction.
OARLOCK_ALWAYS_INLINE floats multiply_add(floats a, floats b, floats c) {
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
