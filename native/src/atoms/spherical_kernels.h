// The table of kernels for frames, rotations and spherical harmonics.
#pragma once

#include "atoms/spherical.h"

namespace oarlock::atoms {

template <typename T>
struct SphericalKernels {
  // frames [E, frame_size(degree)] of vectors [E, 3], of the edges begin … end.
  void (*frames)(const T* vectors, int degree, T* frames, int64_t begin, int64_t end);
  // D x, or Dᵀ x; x and out [E, components, channels].
  void (*rotate)(const T* frames, int degree, bool inverse, const T* x, int64_t channels, T* out,
                 int64_t begin, int64_t end);
  // values [E, components], and where not null gradients [E, components, 3] and second derivatives
  // [E, components, 3, 3], by the vectors.
  void (*harmonics)(const T* vectors, int degree, T* values, T* gradients, T* hessians, int64_t begin,
                    int64_t end);
};

}  // namespace oarlock::atoms
