// The table of kernels for powers of features on a sphere.
#pragma once

#include "atoms/spherical.h"

namespace oarlock::atoms {

// Features are one pointer for each degree: in [N, 2l + 1, C], out [N, 2l + 1, 2C], squares before cubes.
template <typename T>
struct Powers {
  int64_t channels, points;
  const T* values;        // [points, components in], of the harmonics
  const T* weights;       // [points, components out], harmonics by the weight of the point
  const T* in[4];
  const T* in_tangent[4];
  const T* out_slope[4];
  T* out[4];              // result, or its direction
  T* in_slope[4];
};

template <typename T>
using PowersKernel = void (*)(const Powers<T>& work, int64_t begin, int64_t end);

template <typename T>
struct PowersTable {
  PowersKernel<T> at[kMaxFeatureDegree + 1][kMaxFeatureDegree + 1];  // degree in, degree out
};

template <typename T>
struct PowersKernels {
  PowersTable<T> forward, backward, second;
};

}  // namespace oarlock::atoms
