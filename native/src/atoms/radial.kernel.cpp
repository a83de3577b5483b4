// Radial filters of a block of edges; see radial_kernels.h.
//
// Up to the input of the last layer an edge is a lane: matrices are [functions, block]. What goes to
// memory, and its gradients, are rows of features: [block, features].

#include "atoms/product.h"
#include "atoms/radial_basis.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using atoms::kRadialBlock;
template <typename T>
using Net = atoms::RadialNetwork<T>;

// Intermediate results of a block; the number says which derivative by the distance.
template <typename T>
struct Block {
  T* cut[3];       // [block]
  T* basis[3];     // [radial, block]
  T* sums[3];      // of the hidden layer, before its activation [hidden, block]
  T* hidden[3];    // after it
  T* slope;        // of the activation [hidden, block]
  T* bend;         // its second derivative
  T* rows[2];      // [block, feature_pitch]
  T* columns;      // [feature_pitch, block]
  T* basis_rows;   // [block, radial_pitch]
  T* const* inner;  // hidden or basis

  Block(const Net<T>& net, T* work) {
    const auto take = [&](int64_t functions) {
      T* const at = work;
      work += kRadialBlock * functions;
      return at;
    };
    for (T*& x : cut) x = take(1);
    for (T*& x : basis) x = take(net.radial_pitch);
    for (T*& x : sums) x = take(net.hidden);
    for (T*& x : hidden) x = take(net.inner());
    slope = take(net.hidden);
    bend = take(net.hidden);
    for (T*& x : rows) x = take(net.feature_pitch);
    columns = take(net.feature_pitch);
    basis_rows = take(net.radial_pitch);
    inner = net.hidden ? hidden : basis;
  }
};

template <typename T, int kOrder, bool kSilu>
void activate(const Net<T>& net, const Block<T>& block, bool keep) {
  for (int64_t h = 0; h < net.hidden; ++h) {
    const Vector<T> bias = every<T>(net.first_bias[h]);
    for (int64_t e = 0; e < kRadialBlock; e += Lanes<T>::count) {
      const int64_t at = h * kRadialBlock + e;
      const auto d = activation<T, kOrder + 1, kSilu>(get(block.sums[0] + at) + bias);
      put(block.hidden[0] + at, d.at[0]);
      if constexpr (kOrder > 0) {
        const Vector<T> first = get(block.sums[1] + at);
        put(block.hidden[1] + at, d.at[1] * first);
        if constexpr (kOrder > 1)
          put(block.hidden[2] + at, d.at[2] * first * first + d.at[1] * get(block.sums[2] + at));
      }
      if (keep) {
        put(block.slope + at, d.at[1]);
        if constexpr (kOrder > 0) put(block.bend + at, d.at[2]);
      }
    }
  }
}

// Everything up to the input of the last layer, with derivatives up to `kOrder`.
template <typename T, int kOrder>
void enter(const Net<T>& net, const T* distances, int64_t count, const Block<T>& block, bool keep) {
  constexpr int kWidth = Lanes<T>::count;
  T r[kRadialBlock];
  for (int64_t e = 0; e < kRadialBlock; ++e) r[e] = e < count ? distances[e] : T(1);
  for (int64_t e = 0; e < kRadialBlock; e += kWidth) {
    const Jet<T> c = cut_off<T>(get(r + e), net.options);
    for (int j = 0; j <= kOrder; ++j) put(block.cut[j] + e, c.at[j]);
  }
  for (int64_t k = 0; k < net.radial; ++k)
    for (int64_t e = 0; e < kRadialBlock; e += kWidth) {
      const Vector<T> own = every<T>(net.parameters[k]);
      const Jet<T> phi = net.options.basis == atoms::kGaussians
                             ? gaussian<T>(get(r + e), own, T(net.options.width))
                             : bessel<T>(get(r + e), own, T(net.options.cutoff));
      for (int j = 0; j <= kOrder; ++j) put(block.basis[j] + k * kRadialBlock + e, phi.at[j]);
    }
  if (net.hidden == 0) return;
  for (int j = 0; j <= kOrder; ++j)
    product<T, 1, false>(net.first, net.hidden_pitch, net.hidden, block.basis[j], kRadialBlock,
                         net.radial, block.sums[j], kRadialBlock, kRadialBlock);
  if (net.options.silu)
    activate<T, kOrder, true>(net, block, keep);
  else
    activate<T, kOrder, false>(net, block, keep);
}

// Writes a row of results, whose features are not padded.
template <typename T, typename Value>
OARLOCK_ALWAYS_INLINE void write_row(T* out, int64_t features, const Value& value) {
  constexpr int kWidth = Lanes<T>::count;
  int64_t f = 0;
  for (; f + kWidth <= features; f += kWidth) put(out + f, value(f));
  if (f < features) put_some<T>(out + f, value(f), features - f);
}

template <typename T, int kOrder>
void forward_of(const Net<T>& net, const T* distances, int64_t count, T* out, T* slopes, T* work) {
  const Block<T> block(net, work);
  enter<T, kOrder>(net, distances, count, block, false);
  for (int j = 0; j <= kOrder; ++j)
    product<T, 1, false>(block.inner[j], kRadialBlock, count, net.last, net.feature_pitch,
                         net.inner(), block.rows[j], net.feature_pitch, net.feature_pitch);
  for (int64_t e = 0; e < count; ++e) {
    const T* const value = block.rows[0] + e * net.feature_pitch;
    const T cut = block.cut[0][e];
    write_row(out + e * net.features, net.features,
              [&](int64_t f) { return (get(value + f) + get(net.last_bias + f)) * cut; });
    if constexpr (kOrder > 0) {
      const T* const slope = block.rows[1] + e * net.feature_pitch;
      const T cut_slope = block.cut[1][e];
      write_row(slopes + e * net.features, net.features, [&](int64_t f) {
        return multiply_add(get(slope + f), every<T>(cut),
                            (get(value + f) + get(net.last_bias + f)) * cut_slope);
      });
    }
  }
}

template <typename T>
void forward(const Net<T>& net, const T* distances, int64_t count, T* out, T* slopes, T* work) {
  if (slopes != nullptr)
    forward_of<T, 1>(net, distances, count, out, slopes, work);
  else
    forward_of<T, 0>(net, distances, count, out, slopes, work);
}

// Rows of features that are not padded, times a factor each, into padded rows; rows from `count` on
// become 0.
template <typename T>
void scaled_rows(const Net<T>& net, const T* rows, const T* factors, int64_t count, bool add,
                 T* out) {
  constexpr int kWidth = Lanes<T>::count;
  for (int64_t e = 0; e < kRadialBlock; ++e)
    for (int64_t f = 0; f < net.feature_pitch; f += kWidth) {
      T* const to = out + e * net.feature_pitch + f;
      if (e >= count) {
        put(to, Vector<T>{});
        continue;
      }
      const T* const row = rows + e * net.features + f;
      const Vector<T> x = f + kWidth <= net.features ? get(row)
                                                     : get_some<T>(row, net.features - f);
      const Vector<T> before = add ? get(to) : Vector<T>{};
      put(to, multiply_add(x, every<T>(factors[e]), before));
    }
}

// Gradients of the last layer's input, [inner, block], from those of its result in rows.
template <typename T>
void enter_backward(const Net<T>& net, const Block<T>& block, const T* rows, T* out) {
  transpose(rows, net.feature_pitch, kRadialBlock, net.feature_pitch, block.columns, kRadialBlock);
  product<T, 1, false>(net.last_transposed, net.inner_pitch(), net.inner(), block.columns,
                       kRadialBlock, net.features, out, kRadialBlock, kRadialBlock);
}

template <typename T>
void backward(const Net<T>& net, const T* distances, int64_t count, const T* a, const T* b,
              const atoms::RadialGradients<T>& gradients, T* work) {
  constexpr int kWidth = Lanes<T>::count;
  const Block<T> block(net, work);
  const int slopes = b != nullptr;
  if (slopes)
    enter<T, 1>(net, distances, count, block, true);
  else
    enter<T, 0>(net, distances, count, block, true);
  if (a != nullptr) scaled_rows(net, a, block.cut[0], count, false, block.rows[0]);
  if (slopes) {
    scaled_rows(net, b, block.cut[1], count, a != nullptr, block.rows[0]);
    scaled_rows(net, b, block.cut[0], count, false, block.rows[1]);
  }
  for (int j = 0; j <= slopes; ++j)
    product<T, kRadialBlock, true>(block.inner[j], 1, net.inner(), block.rows[j],
                                   net.feature_pitch, count, gradients.last, net.feature_pitch,
                                   net.feature_pitch);
  for (int64_t f = 0; f < net.feature_pitch; f += kWidth) {
    Vector<T> sum = get(gradients.last_bias + f);
    for (int64_t e = 0; e < count; ++e) sum += get(block.rows[0] + e * net.feature_pitch + f);
    put(gradients.last_bias + f, sum);
  }
  if (net.hidden == 0) return;
  // Through the activation; the hidden values are not needed any more.
  for (int j = 0; j <= slopes; ++j) enter_backward(net, block, block.rows[j], block.hidden[j]);
  for (int64_t h = 0; h < net.hidden; ++h) {
    Vector<T> sum = {};
    for (int64_t e = 0; e < kRadialBlock; e += kWidth) {
      const int64_t at = h * kRadialBlock + e;
      const Vector<T> slope = get(block.slope + at);
      Vector<T> value = get(block.hidden[0] + at) * slope;
      if (slopes) {
        const Vector<T> other = get(block.hidden[1] + at);
        value = multiply_add(other * get(block.bend + at), get(block.sums[1] + at), value);
        put(block.hidden[1] + at, other * slope);
      }
      put(block.hidden[0] + at, value);
      sum += value;
    }
    gradients.first_bias[h] += total<T>(sum);
  }
  for (int j = 0; j <= slopes; ++j) {
    transpose(block.basis[j], kRadialBlock, net.radial_pitch, kRadialBlock, block.basis_rows,
              net.radial_pitch);
    product<T, kRadialBlock, true>(block.hidden[j], 1, net.hidden, block.basis_rows,
                                   net.radial_pitch, count, gradients.first_transposed,
                                   net.radial_pitch, net.radial_pitch);
  }
}

template <typename T>
void curvature(const Net<T>& net, const T* distances, int64_t count, const T* b, T* out, T* work) {
  constexpr int kWidth = Lanes<T>::count;
  const Block<T> block(net, work);
  enter<T, 2>(net, distances, count, block, false);
  T ones[kRadialBlock], found[kRadialBlock];
  for (T& one : ones) one = 1;
  scaled_rows(net, b, ones, count, false, block.rows[0]);
  T* const factors = net.hidden ? block.sums[0] : block.hidden[0];  // neither is needed any more
  enter_backward(net, block, block.rows[0], factors);
  for (int64_t e = 0; e < kRadialBlock; e += kWidth) {
    Vector<T> sums[3] = {};
    for (int64_t k = 0; k < net.inner(); ++k) {
      const Vector<T> factor = get(factors + k * kRadialBlock + e);
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j)
        sums[j] = multiply_add(factor, get(block.inner[j] + k * kRadialBlock + e), sums[j]);
    }
    for (int64_t f = 0; f < net.features; ++f)
      sums[0] = multiply_add(get(block.columns + f * kRadialBlock + e),
                             every<T>(net.last_bias[f]), sums[0]);
    put(found + e, get(block.cut[2] + e) * sums[0] + T(2) * get(block.cut[1] + e) * sums[1] +
                       get(block.cut[0] + e) * sums[2]);
  }
  for (int64_t e = 0; e < count; ++e) out[e] = found[e];
}

}  // namespace

extern const atoms::RadialKernels radial_kernels;
const atoms::RadialKernels radial_kernels = {
    kLanes,
    {forward<float>, backward<float>, curvature<float>},
    {forward<double>, backward<double>, curvature<double>},
};

}  // namespace oarlock::OARLOCK_PATH
