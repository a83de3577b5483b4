// Registers of a code path, and the shape of a tile of sums that fits into them.
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
constexpr int kLanes = 16, kTileRows = 14, kColumnVectors = 2;
#elif defined(OARLOCK_PATH_avx2)
constexpr int kLanes = 8, kTileRows = 6, kColumnVectors = 2;
#elif defined(OARLOCK_PATH_neon)
constexpr int kLanes = 4, kTileRows = 6, kColumnVectors = 4;
#else
constexpr int kLanes = 4, kTileRows = 4, kColumnVectors = 2;
#endif
constexpr int kPanelWidth = kLanes * kColumnVectors;

typedef float floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t words __attribute__((vector_size(4 * kLanes)));

template <typename Vector, typename T>
inline Vector load_as(const T* p) {
  Vector x;
  __builtin_memcpy(&x, p, sizeof x);
  return x;
}

template <typename Vector, typename T>
inline void store_as(T* p, const Vector& x) {
  __builtin_memcpy(p, &x, sizeof x);
}

inline words broadcast(uint32_t x) { return words{} + x; }

// a b + c, rounded once where the path has such an instruction.
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

// c + the sum of the two products of int16 in each lane.
inline words multiply_add_words(words c, words a, words b) {
#if defined(OARLOCK_PATH_avx512)
  return c + (words)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(OARLOCK_PATH_avx2)
  return c + (words)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  const ints x = (ints)a, y = (ints)b;
  const ints low = ((ints)((words)x << 16) >> 16) * ((ints)((words)y << 16) >> 16);
  return c + (words)low + (words)((x >> 16) * (y >> 16));
#endif
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
