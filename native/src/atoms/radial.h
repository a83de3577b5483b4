// Radial filters of all edges.
#pragma once

#include <cstdint>

#include "atoms/radial_kernels.h"

namespace oarlock::atoms {

// As given by callers: no padding; `last` is [inner, features].
template <typename T>
struct RadialWeights {
  const T *parameters, *first, *first_bias, *last, *last_bias;
  std::int64_t radial, hidden, features;
};

template <typename T>
void radial_forward(const RadialOptions& options, const RadialWeights<T>& weights,
                    const T* distances, std::int64_t edges, T* out, T* slopes,
                    std::int32_t threads);

// For each of the weights, of its shape.
template <typename T>
struct WeightGradients {
  T *first, *first_bias, *last, *last_bias;
};

template <typename T>
void radial_backward(const RadialOptions& options, const RadialWeights<T>& weights,
                     const T* distances, std::int64_t edges, const T* a, const T* b,
                     const WeightGradients<T>& gradients, std::int32_t threads);

template <typename T>
void radial_curvature(const RadialOptions& options, const RadialWeights<T>& weights,
                      const T* distances, std::int64_t edges, const T* b, T* out,
                      std::int32_t threads);

}  // namespace oarlock::atoms
