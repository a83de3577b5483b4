// Radial filters: what a code path provides.
//
//   w(r) = c(r) (f(φ(r) W₁ + b₁) W₂ + b₂),  or without a hidden layer  c(r) (φ(r) W₁ + b₁)
//
// φ is a basis, c a cut-off, f an activation. Everything is a function of one number, so derivatives by
// it go forwards with the values. Edges are taken by blocks whose intermediate results stay in the
// cache; nothing but the results goes to memory.
#pragma once

#include <stdint.h>

namespace oarlock::atoms {

constexpr int64_t kRadialBlock = 48;

enum RadialBasis : int32_t { kGaussians = 0, kBessels = 1 };
enum RadialCutoff : int32_t { kCosine = 0, kPolynomial = 1 };

struct RadialOptions {  // mirrored in oarlock/native/_atoms_abi.py
  int32_t basis, cut, silu, power;
  double cutoff, width;
};

// Matrices with columns padded by zeros to a pitch of whole registers. `inner` is the input of the last
// layer: the hidden layer, or the basis where there is none.
template <typename T>
struct RadialNetwork {
  RadialOptions options;
  int64_t radial, radial_pitch;
  int64_t hidden, hidden_pitch;  // 0 for none
  int64_t features, feature_pitch;
  const T* parameters;           // centres or frequencies [radial_pitch]
  const T *first, *first_bias;   // of the hidden layer [radial, hidden_pitch]
  const T *last, *last_bias;     // [inner, feature_pitch]
  const T* last_transposed;      // [features, inner_pitch]

  int64_t inner() const { return hidden ? hidden : radial; }
  int64_t inner_pitch() const { return hidden ? hidden_pitch : radial_pitch; }
  int64_t workspace() const {
    return kRadialBlock *
           (3 + 4 * radial_pitch + 5 * hidden + 3 * inner() + 3 * feature_pitch);
  }
};

template <typename T>
struct RadialGradients {  // added to
  T *first_transposed, *first_bias;  // [hidden, radial_pitch], [hidden]
  T *last, *last_bias;               // [inner, feature_pitch], [feature_pitch]
};

template <typename T>
struct RadialTable {
  // For `count` <= kRadialBlock edges: w to out and, unless null, dw/dr to slopes, [count, features].
  void (*forward)(const RadialNetwork<T>& net, const T* distances, int64_t count, T* out, T* slopes,
                  T* work);
  // Gradients by the weights of the sum of a ∘ w + b ∘ dw/dr; either of a and b may be null.
  void (*backward)(const RadialNetwork<T>& net, const T* distances, int64_t count, const T* a,
                   const T* b, const RadialGradients<T>& gradients, T* work);
  // out[e] = the sum of b[e] ∘ d²w/dr².
  void (*curvature)(const RadialNetwork<T>& net, const T* distances, int64_t count, const T* b,
                    T* out, T* work);
};

struct RadialKernels {
  int64_t lanes;  // of float32
  RadialTable<float> single;
  RadialTable<double> twice;
};

}  // namespace oarlock::atoms
