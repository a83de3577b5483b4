// Features of degrees 0 to L: how their components are counted, and how they turn.
//
// Components of degree l are those of the real spherical harmonics, m = −l … l; those of degree 1 are
// y, z, x. A frame is what the kernels know of an edge: its length, then for l = 1, 2, … the matrix
// D^l [2l + 1, 2l + 1] that takes components to axes of which z is the edge's direction.
#pragma once

#include <stdint.h>

namespace oarlock::atoms {

constexpr int kMaxDegree = 4;         // of frames, harmonics and rotations
constexpr int kMaxFeatureDegree = 3;  // of convolutions and powers

constexpr int components(int degree) { return (degree + 1) * (degree + 1); }
constexpr int component(int l, int m) { return l * l + l + m; }

// Where D^l begins in a frame, and how long frames to a degree are.
constexpr int matrix_at(int l) { return l * (4 * l * l - 1) / 3; }
constexpr int frame_size(int degree) { return matrix_at(degree + 1); }
constexpr int entry(int l, int row, int column) {
  return matrix_at(l) + (row + l) * (2 * l + 1) + column + l;
}

// Maps between features of two degrees that commute with turns about z and with reflections have one
// weight for each |m|, degree out and degree in, counted in this order.
constexpr int path(int in, int out, int m, int l_out, int l_in) {
  int before = 0;
  for (int k = 0; k < m; ++k) before += (in + 1 - k) * (out + 1 - k);
  return before + (l_out - m) * (in + 1 - m) + l_in - m;
}
constexpr int paths(int in, int out) {
  const int m = in < out ? in : out;
  return path(in, out, m, out, in) + 1;
}

}  // namespace oarlock::atoms
