// Sums over the edges at each atom: what a code path provides.
//
// Edges come as pairs of atoms with a row of numbers (a filter) each; those of the first `both` pairs act
// from either end with the same filter. Features are [atoms, channels, width]; filters are
// [pairs, width], the same for all channels. Kernels work on the columns [begin, end) of the width of one
// channel, so that threads can share out columns and each sum has one order.
#pragma once

#include <stdint.h>

namespace oarlock::atoms {

struct Pairs {
  const int64_t *first, *second;
  int64_t count, both;
};

struct Columns {
  int64_t width, pitch;  // numbers in a row of filters; numbers from one atom to the next
  int64_t begin, end;
};

template <typename T>
struct EdgeTable {
  // out[first] += features[second] ∘ filter, and the other way for pairs that act from both ends.
  // `features` and `out` point to the channel.
  void (*convolve)(const T* features, const T* filters, const Pairs& pairs, const Columns& columns,
                   T* out);
  // out[pair] = Σ over channels of a[first] ∘ b[second] (+ a[second] ∘ b[first]), pairs [from, to).
  void (*multiply)(const T* a, const T* b, const Pairs& pairs, int64_t from, int64_t to,
                   int64_t channels, int64_t width, T* out);
  // out[index[row]] += values[row]
  void (*scatter)(const T* values, const int64_t* index, int64_t count, const Columns& columns,
                  T* out);
  // out[row] = x[row] · y[row]
  void (*dot)(const T* x, const T* y, int64_t rows, int64_t width, T* out);
  // out[row] = x[row] s[row]
  void (*scale)(const T* x, const T* s, int64_t rows, int64_t width, T* out);
  // out += Σ of rows
  void (*sum)(const T* x, int64_t rows, int64_t width, T* out);
  // out = f⁽ᵒʳᵈᵉʳ⁾(x + bias) [∘ g] [∘ h]; bias [width], g and h may be null.
  void (*activate)(const T* x, const T* bias, const T* g, const T* h, int64_t rows, int64_t width,
                   int32_t silu, int32_t order, T* out);
};

struct EdgeKernels {
  EdgeTable<float> single;
  EdgeTable<double> twice;
};

}  // namespace oarlock::atoms
