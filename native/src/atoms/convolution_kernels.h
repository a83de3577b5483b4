// The table of convolution kernels, and what they work on.
#pragma once

#include "atoms/spherical.h"

namespace oarlock::atoms {

// One edge list, by centre or by neighbour: the edges of atom i are order[offsets[i]] …, or where order
// is null the numbers themselves; other[edge] is the atom at the far end.
struct EdgeList {
  const int64_t* offsets;
  const int64_t* order;
  const int64_t* other;
};

// Null where a kernel has no use for it. Features are one pointer for each degree, [N, 2l + 1, C].
template <typename T>
struct Convolution {
  int64_t channels, frame, intervals;  // frame: numbers of a frame; intervals: of the radial spline
  T cutoff;
  EdgeList edges;
  const T* frames;            // [E, frame]
  const T* table;             // [intervals + 3, paths, C]
  const T* in[4];             // h
  const T* in_tangent[4];     // its direction
  const T* vector_tangent;    // [E, 3]
  const T* out_slope[4];      // gradient by the result
  T* out[4];                  // result, or its direction
  T* in_slope[4];             // gradient by h
  T* table_slope;             // [intervals + 3, paths, C], added to; may be null
  T* vector_slope;            // [E, 3]
};

template <typename T>
using ConvolutionKernel = void (*)(const Convolution<T>& work, int64_t begin, int64_t end);

// By the degree in and the degree out; null where there is none.
template <typename T>
struct ConvolutionTable {
  ConvolutionKernel<T> at[kMaxFeatureDegree + 1][kMaxFeatureDegree + 1];
};

template <typename T>
struct ConvolutionKernels {
  ConvolutionTable<T> forward, backward, tangent, second;
};

}  // namespace oarlock::atoms
