// Radial filters of a block of edges; see radial_kernels.h.

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
  T *cut[3];                    // [block]
  T *basis[3];                  // [block, radial_pitch]
  T *sums[3];                   // of the hidden layer, before its activation [block, inner_pitch]
  T *hidden[3];                 // after it
  T *slope, *bend;              // of the activation
  T *inner_gradient;
  T *out[3];                    // [block, feature_pitch]
  T *const *inner;              // hidden or basis

  Block(const Net<T>& net, T* work) {
    const auto take = [&](int64_t pitch) {
      T* const at = work;
      work += kRadialBlock * pitch;
      return at;
    };
    for (T*& x : cut) x = take(1);
    for (T*& x : basis) x = take(net.radial_pitch);
    for (T*& x : sums) x = take(net.inner_pitch());
    for (T*& x : hidden) x = take(net.inner_pitch());
    slope = take(net.inner_pitch());
    bend = take(net.inner_pitch());
    inner_gradient = take(net.inner_pitch());
    for (T*& x : out) x = take(net.feature_pitch);
    inner = net.hidden ? hidden : basis;
  }
};

template <typename T, int kOrder, bool kSilu>
void activate(const Net<T>& net, const Block<T>& block, int64_t count, bool keep) {
  for (int64_t e = 0; e < count; ++e)
    for (int64_t k = 0; k < net.hidden_pitch; k += Lanes<T>::count) {
      const int64_t at = e * net.hidden_pitch + k;
      const auto d =
          activation<T, kOrder + 1, kSilu>(get(block.sums[0] + at) + get(net.first_bias + k));
      put(block.hidden[0] + at, d.at[0]);
      if constexpr (kOrder > 0) {
        const Vector<T> first = get(block.sums[1] + at);
        put(block.hidden[1] + at, d.at[1] * first);
        if constexpr (kOrder > 1)
          put(block.hidden[2] + at,
              d.at[2] * first * first + d.at[1] * get(block.sums[2] + at));
      }
      if (keep) {
        put(block.slope + at, d.at[1]);
        if constexpr (kOrder > 0) put(block.bend + at, d.at[2]);
      }
    }
}

// Everything up to the input of the last layer, with derivatives up to `kOrder`.
template <typename T, int kOrder>
void enter(const Net<T>& net, const T* distances, int64_t count, const Block<T>& block, bool keep) {
  constexpr int kWidth = Lanes<T>::count;
  T padded[kRadialBlock];
  for (int64_t e = 0; e < kRadialBlock; ++e) padded[e] = e < count ? distances[e] : T(1);
  for (int64_t e = 0; e < count; e += kWidth) {
    const Jet<T> c = cut_off<T>(get(padded + e), net.options);
    for (int k = 0; k <= kOrder; ++k) put(block.cut[k] + e, c.at[k]);
  }
  for (int64_t e = 0; e < count; ++e)
    for (int64_t k = 0; k < net.radial_pitch; k += kWidth) {
      const Vector<T> r = every<T>(distances[e]), own = get(net.parameters + k);
      const Jet<T> phi = net.options.basis == atoms::kGaussians
                             ? gaussian<T>(r, own, T(net.options.width))
                             : bessel<T>(r, own, T(net.options.cutoff));
      for (int j = 0; j <= kOrder; ++j) put(block.basis[j] + e * net.radial_pitch + k, phi.at[j]);
    }
  if (net.hidden == 0) return;
  for (int k = 0; k <= kOrder; ++k)
    product<T, false>(block.basis[k], {net.radial_pitch, 1}, count, net.first, net.hidden_pitch,
                      net.radial, block.sums[k], net.hidden_pitch, net.hidden_pitch);
  if (net.options.silu)
    activate<T, kOrder, true>(net, block, count, keep);
  else
    activate<T, kOrder, false>(net, block, count, keep);
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
  for (int k = 0; k <= kOrder; ++k)
    product<T, false>(block.inner[k], {net.inner_pitch(), 1}, count, net.last, net.feature_pitch,
                      net.inner(), block.out[k], net.feature_pitch, net.feature_pitch);
  for (int64_t e = 0; e < count; ++e) {
    const T* const value = block.out[0] + e * net.feature_pitch;
    const T cut = block.cut[0][e];
    write_row(out + e * net.features, net.features,
              [&](int64_t f) { return (get(value + f) + get(net.last_bias + f)) * cut; });
    if constexpr (kOrder > 0) {
      const T* const slope = block.out[1] + e * net.feature_pitch;
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

// Rows of features that are not padded, times a factor each, into padded rows.
template <typename T>
void scaled_rows(const Net<T>& net, const T* rows, const T* factors, int64_t count, bool add,
                 T* out) {
  constexpr int kWidth = Lanes<T>::count;
  for (int64_t e = 0; e < count; ++e)
    for (int64_t f = 0; f < net.feature_pitch; f += kWidth) {
      const T* const row = rows + e * net.features;
      T* const to = out + e * net.feature_pitch + f;
      const Vector<T> x = f + kWidth <= net.features ? get(row + f)
                                                     : get_some<T>(row + f, net.features - f);
      const Vector<T> before = add ? get(to) : Vector<T>{};
      put(to, multiply_add(x, every<T>(factors[e]), before));
    }
}

template <typename T>
void add_rows(const T* rows, int64_t count, int64_t pitch, T* sums) {
  for (int64_t f = 0; f < pitch; f += Lanes<T>::count) {
    Vector<T> sum = get(sums + f);
    for (int64_t e = 0; e < count; ++e) sum += get(rows + e * pitch + f);
    put(sums + f, sum);
  }
}

template <typename T>
void backward(const Net<T>& net, const T* distances, int64_t count, const T* a, const T* b,
              const atoms::RadialGradients<T>& gradients, T* work) {
  const Block<T> block(net, work);
  const bool slopes = b != nullptr;
  if (slopes)
    enter<T, 1>(net, distances, count, block, true);
  else
    enter<T, 0>(net, distances, count, block, true);
  // Of the last layer's results and of their slopes.
  T* const of_value = block.out[0];
  T* const of_slope = block.out[1];
  if (a != nullptr) scaled_rows(net, a, block.cut[0], count, false, of_value);
  if (slopes) {
    scaled_rows(net, b, block.cut[1], count, a != nullptr, of_value);
    scaled_rows(net, b, block.cut[0], count, false, of_slope);
  }
  const int64_t pitch = net.inner_pitch();
  product<T, true>(block.inner[0], {1, pitch}, net.inner(), of_value, net.feature_pitch, count,
                   gradients.last, net.feature_pitch, net.feature_pitch);
  if (slopes)
    product<T, true>(block.inner[1], {1, pitch}, net.inner(), of_slope, net.feature_pitch, count,
                     gradients.last, net.feature_pitch, net.feature_pitch);
  add_rows(of_value, count, net.feature_pitch, gradients.last_bias);
  if (net.hidden == 0) return;
  // Through the activation; the hidden values are not needed any more.
  T* const by_value = block.hidden[0];
  T* const by_slope = block.hidden[1];
  product<T, false>(of_value, {net.feature_pitch, 1}, count, net.last_transposed, pitch,
                    net.features, by_value, pitch, pitch);
  if (slopes)
    product<T, false>(of_slope, {net.feature_pitch, 1}, count, net.last_transposed, pitch,
                      net.features, by_slope, pitch, pitch);
  for (int64_t at = 0; at < count * pitch; at += Lanes<T>::count) {
    const Vector<T> slope = get(block.slope + at);
    Vector<T> value = get(by_value + at) * slope;
    if (slopes) {
      const Vector<T> other = get(by_slope + at);
      value = multiply_add(other * get(block.bend + at), get(block.sums[1] + at), value);
      put(by_slope + at, other * slope);
    }
    put(by_value + at, value);
  }
  product<T, true>(block.basis[0], {1, net.radial_pitch}, net.radial, by_value, pitch, count,
                   gradients.first, pitch, pitch);
  if (slopes)
    product<T, true>(block.basis[1], {1, net.radial_pitch}, net.radial, by_slope, pitch, count,
                     gradients.first, pitch, pitch);
  add_rows(by_value, count, pitch, gradients.first_bias);
}

template <typename T>
void curvature(const Net<T>& net, const T* distances, int64_t count, const T* b, T* out, T* work) {
  const Block<T> block(net, work);
  enter<T, 2>(net, distances, count, block, false);
  T ones[kRadialBlock];
  for (T& one : ones) one = 1;
  scaled_rows(net, b, ones, count, false, block.out[0]);
  const int64_t pitch = net.inner_pitch();
  product<T, false>(block.out[0], {net.feature_pitch, 1}, count, net.last_transposed, pitch,
                    net.features, block.inner_gradient, pitch, pitch);
  for (int64_t e = 0; e < count; ++e) {
    Vector<T> sums[3] = {}, bias = {};
    for (int64_t k = 0; k < pitch; k += Lanes<T>::count) {
      const Vector<T> factor = get(block.inner_gradient + e * pitch + k);
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j)
        sums[j] = multiply_add(factor, get(block.inner[j] + e * pitch + k), sums[j]);
    }
    for (int64_t f = 0; f < net.feature_pitch; f += Lanes<T>::count)
      bias = multiply_add(get(block.out[0] + e * net.feature_pitch + f), get(net.last_bias + f),
                          bias);
    const T value = total<T>(sums[0]) + total<T>(bias);
    out[e] = block.cut[2][e] * value + 2 * block.cut[1][e] * total<T>(sums[1]) +
             block.cut[0][e] * total<T>(sums[2]);
  }
}

}  // namespace

extern const atoms::RadialKernels radial_kernels;
const atoms::RadialKernels radial_kernels = {
    kLanes,
    {forward<float>, backward<float>, curvature<float>},
    {forward<double>, backward<double>, curvature<double>},
};

}  // namespace oarlock::OARLOCK_PATH
