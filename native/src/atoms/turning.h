// Features of one edge in registers: into the edge's frame and back, and what a small turn of it does.
#pragma once

#include "atoms/lanes.h"
#include "atoms/spherical.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using atoms::component;
using atoms::entry;

// Of y as component(l, m), the |m| ≤ M components D x; the others are left as they are.
template <int L, int M, typename T>
OARLOCK_ALWAYS_INLINE void turn_in(const T* frame, const Lanes<T>* x, Lanes<T>* y) {
  y[0] = x[0];
#pragma GCC unroll 4
  for (int l = 1; l <= L; ++l) {
#pragma GCC unroll 9
    for (int row = -(l < M ? l : M); row <= (l < M ? l : M); ++row) {
      Lanes<T> sum = every(frame[entry(l, row, -l)]) * x[component(l, -l)];
#pragma GCC unroll 9
      for (int m = -l + 1; m <= l; ++m)
        sum = multiply_add(every(frame[entry(l, row, m)]), x[component(l, m)], sum);
      y[component(l, row)] = sum;
    }
  }
}

// y += Dᵀ x, of x the components |m| ≤ M.
template <int L, int M, typename T>
OARLOCK_ALWAYS_INLINE void turn_out(const T* frame, const Lanes<T>* x, Lanes<T>* y) {
  y[0] += x[0];
#pragma GCC unroll 4
  for (int l = 1; l <= L; ++l) {
#pragma GCC unroll 9
    for (int row = -(l < M ? l : M); row <= (l < M ? l : M); ++row) {
#pragma GCC unroll 9
      for (int m = -l; m <= l; ++m)
        y[component(l, m)] =
            multiply_add(every(frame[entry(l, row, m)]), x[component(l, row)], y[component(l, m)]);
    }
  }
}

constexpr double root(double x) {
  double r = x > 1 ? x : 1;
  for (int i = 0; i < 60; ++i) r = 0.5 * (r + x / r);
  return r;
}

// What ties m to m + 1 when the frame turns about x or y.
template <typename T>
OARLOCK_ALWAYS_INLINE constexpr T ladder(int l, int m) {
  constexpr double table[4][4] = {{0, 0, 0, 0},
                                  {1, 0, 0, 0},
                                  {root(3), 1, 0, 0},
                                  {root(6), root(10) / 2, root(6) / 2, 0}};
  return T(table[l][m]);
}

// (u · Jx v, u · Jy v), where J is the change of components by a turn about the frame's x and y; of v the
// components |m| ≤ V are there, of u those |m| ≤ U.
template <int L, int U, int V, typename T>
OARLOCK_ALWAYS_INLINE void torque(const Lanes<T>* u, const Lanes<T>* v, Lanes<T>& x, Lanes<T>& y) {
#pragma GCC unroll 4
  for (int l = 1; l <= L; ++l) {
    Lanes<T> along_x{}, along_y{};
#pragma GCC unroll 4
    for (int m = 0; m < l; ++m) {
      const Lanes<T> c = every(ladder<T>(l, m));
      const int low = component(l, m), high = component(l, m + 1);
      const int low_sine = component(l, -m), high_sine = component(l, -m - 1);
      along_x = along_y = Lanes<T>{};
      if (m + 1 <= U && m <= V) {
        along_y += u[high] * v[low];
        along_x -= u[high_sine] * v[low];
        if (m > 0) {
          along_y += u[high_sine] * v[low_sine];
          along_x += u[high] * v[low_sine];
        }
      }
      if (m <= U && m + 1 <= V) {
        along_y -= u[low] * v[high];
        along_x += u[low] * v[high_sine];
        if (m > 0) {
          along_y -= u[low_sine] * v[high_sine];
          along_x -= u[low_sine] * v[high];
        }
      }
      x = multiply_add(c, along_x, x);
      y = multiply_add(c, along_y, y);
    }
  }
}

// y += sign (ωx Jx + ωy Jy) x, of x the components |m| ≤ M, of y those |m| ≤ M + 1.
template <int L, int M, typename T>
OARLOCK_ALWAYS_INLINE void add_turned(T omega_x, T omega_y, const Lanes<T>* x, Lanes<T>* y) {
#pragma GCC unroll 4
  for (int l = 1; l <= L; ++l) {
#pragma GCC unroll 4
    for (int m = 0; m < l; ++m) {
      const Lanes<T> about_x = every(omega_x * ladder<T>(l, m)), about_y = every(omega_y * ladder<T>(l, m));
      const int low = component(l, m), high = component(l, m + 1);
      const int low_sine = component(l, -m), high_sine = component(l, -m - 1);
      if (m <= M) {
        y[high] = multiply_add(about_y, x[low], y[high]);
        y[high_sine] = multiply_add(-about_x, x[low], y[high_sine]);
        if (m > 0) {
          y[high_sine] = multiply_add(about_y, x[low_sine], y[high_sine]);
          y[high] = multiply_add(about_x, x[low_sine], y[high]);
        }
      }
      if (m + 1 <= M) {
        y[low] = multiply_add(-about_y, x[high], y[low]);
        y[low] = multiply_add(about_x, x[high_sine], y[low]);
        if (m > 0) {
          y[low_sine] = multiply_add(-about_y, x[high_sine], y[low_sine]);
          y[low_sine] = multiply_add(-about_x, x[high], y[low_sine]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
