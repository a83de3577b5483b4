// Squares and cubes of functions on a sphere: features are read as f(s) = Σ h_lm C_lm(s), and the
// components of f² and f³ are sums over points that integrate such products exactly.
#pragma once

#include "atoms/features.h"
#include "atoms/powers_kernels.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using atoms::Powers;

// Σ a_i x_i.
template <int N, typename T>
OARLOCK_ALWAYS_INLINE Lanes<T> weighted(const T* a, const Lanes<T>* x) {
  Lanes<T> even = every(a[0]) * x[0], odd{};
#pragma GCC unroll 16
  for (int i = 1; i < N; ++i) {
    if (i % 2 == 0) even = multiply_add(every(a[i]), x[i], even);
    else odd = multiply_add(every(a[i]), x[i], odd);
  }
  return even + odd;
}

// y_i += a_i x.
template <int N, typename T>
OARLOCK_ALWAYS_INLINE void spread(const T* a, Lanes<T> x, Lanes<T>* y) {
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) y[i] = multiply_add(every(a[i]), x, y[i]);
}

template <int In, int Out, typename T>
void forward(const Powers<T>& work, int64_t begin, int64_t end) {
  constexpr int N = atoms::components(In), K = atoms::components(Out);
  for (int64_t atom = begin; atom < end; ++atom)
    for (int64_t c = 0; c < work.channels; c += kLanesOf<T>) {
      Lanes<T> h[N], squares[K] = {}, cubes[K] = {};
      load_features<In, T>(work.in, atom, work.channels, c, h);
      for (int64_t p = 0; p < work.points; ++p) {
        const Lanes<T> f = weighted<N>(work.values + p * N, h), f2 = f * f;
        spread<K>(work.weights + p * K, f2, squares);
        spread<K>(work.weights + p * K, f2 * f, cubes);
      }
      store_features<Out, T>(work.out, atom, 2 * work.channels, c, squares);
      store_features<Out, T>(work.out, atom, 2 * work.channels, c + work.channels, cubes);
    }
}

template <int In, int Out, typename T>
void backward(const Powers<T>& work, int64_t begin, int64_t end) {
  constexpr int N = atoms::components(In), K = atoms::components(Out);
  for (int64_t atom = begin; atom < end; ++atom)
    for (int64_t c = 0; c < work.channels; c += kLanesOf<T>) {
      Lanes<T> h[N], squares[K], cubes[K], slope[N] = {};
      load_features<In, T>(work.in, atom, work.channels, c, h);
      load_features<Out, T>(work.out_slope, atom, 2 * work.channels, c, squares);
      load_features<Out, T>(work.out_slope, atom, 2 * work.channels, c + work.channels, cubes);
      for (int64_t p = 0; p < work.points; ++p) {
        const T* const values = work.values + p * N;
        const Lanes<T> f = weighted<N>(values, h);
        const Lanes<T> square = weighted<K>(work.weights + p * K, squares);
        const Lanes<T> cube = weighted<K>(work.weights + p * K, cubes);
        spread<N>(values, f * multiply_add(every(T(3)) * f, cube, square + square), slope);
      }
      store_features<In, T>(work.in_slope, atom, work.channels, c, slope);
    }
}

// The direction of the result that one of h makes, and the gradient by h of that, times `out_slope`.
template <int In, int Out, typename T>
void second(const Powers<T>& work, int64_t begin, int64_t end) {
  constexpr int N = atoms::components(In), K = atoms::components(Out);
  for (int64_t atom = begin; atom < end; ++atom)
    for (int64_t c = 0; c < work.channels; c += kLanesOf<T>) {
      Lanes<T> h[N], dh[N], squares[K], cubes[K], slope[N] = {}, moved[K] = {}, moved_cubes[K] = {};
      load_features<In, T>(work.in, atom, work.channels, c, h);
      load_features<In, T>(work.in_tangent, atom, work.channels, c, dh);
      load_features<Out, T>(work.out_slope, atom, 2 * work.channels, c, squares);
      load_features<Out, T>(work.out_slope, atom, 2 * work.channels, c + work.channels, cubes);
      for (int64_t p = 0; p < work.points; ++p) {
        const T *const values = work.values + p * N, *const weights = work.weights + p * K;
        const Lanes<T> f = weighted<N>(values, h), df = weighted<N>(values, dh), f_df = f * df;
        const Lanes<T> square = weighted<K>(weights, squares), cube = weighted<K>(weights, cubes);
        spread<K>(weights, f_df + f_df, moved);
        spread<K>(weights, every(T(3)) * f * f_df, moved_cubes);
        spread<N>(values, df * multiply_add(every(T(6)) * f, cube, square + square), slope);
      }
      store_features<Out, T>(work.out, atom, 2 * work.channels, c, moved);
      store_features<Out, T>(work.out, atom, 2 * work.channels, c + work.channels, moved_cubes);
      store_features<In, T>(work.in_slope, atom, work.channels, c, slope);
    }
}

#define OARLOCK_POWERS(kernel, T)                                                  \
  {{{nullptr, nullptr, nullptr, nullptr},                                          \
    {kernel<1, 0, T>, kernel<1, 1, T>, nullptr, nullptr},                          \
    {kernel<2, 0, T>, kernel<2, 1, T>, kernel<2, 2, T>, nullptr},                  \
    {kernel<3, 0, T>, kernel<3, 1, T>, kernel<3, 2, T>, kernel<3, 3, T>}}}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
