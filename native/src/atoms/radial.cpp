#include "atoms/radial.h"

#include <algorithm>

#include "core/buffer.h"
#include "core/dispatch.h"
#include "core/parallel.h"

OARLOCK_DECLARE_KERNELS(oarlock::atoms::RadialKernels, radial_kernels)

namespace oarlock::atoms {
namespace {

template <typename T>
const RadialTable<T>& table(const RadialKernels& kernels) {
  if constexpr (sizeof(T) == sizeof(float))
    return kernels.single;
  else
    return kernels.twice;
}

// The weights as kernels read them.
template <typename T>
class Padded {
 public:
  Padded(const RadialOptions& options, const RadialWeights<T>& w, std::int64_t lanes) {
    net.options = options;
    net.radial = w.radial, net.hidden = w.hidden, net.features = w.features;
    const auto pitch = [lanes](std::int64_t n) { return (n + lanes - 1) / lanes * lanes; };
    net.radial_pitch = pitch(w.radial);
    net.hidden_pitch = pitch(w.hidden);
    net.feature_pitch = pitch(w.features);
    const std::int64_t inner = net.inner(), inner_pitch = net.inner_pitch();
    memory_.allocate(net.radial_pitch + (w.hidden ? w.radial + 1 : 0) * net.hidden_pitch +
                     (inner + 1) * net.feature_pitch + w.features * inner_pitch);
    T* at = memory_.data();
    net.parameters = rows(w.parameters, 1, w.radial, net.radial_pitch, at);
    net.first = net.first_bias = nullptr;
    if (w.hidden) {
      net.first = rows(w.first, w.radial, w.hidden, net.hidden_pitch, at);
      net.first_bias = rows(w.first_bias, 1, w.hidden, net.hidden_pitch, at);
    }
    net.last = rows(w.last, inner, w.features, net.feature_pitch, at);
    net.last_bias = rows(w.last_bias, 1, w.features, net.feature_pitch, at);
    net.last_transposed = at;
    std::fill_n(at, w.features * inner_pitch, T(0));
    for (std::int64_t i = 0; i < inner; ++i)
      for (std::int64_t f = 0; f < w.features; ++f)
        at[f * inner_pitch + i] = w.last[i * w.features + f];
  }

  RadialNetwork<T> net;

 private:
  static const T* rows(const T* from, std::int64_t rows, std::int64_t columns, std::int64_t pitch,
                       T*& at) {
    const T* const begin = at;
    for (std::int64_t row = 0; row < rows; ++row, at += pitch) {
      std::copy_n(from + row * columns, columns, at);
      std::fill(at + columns, at + pitch, T(0));
    }
    return begin;
  }

  Buffer<T> memory_;
};

constexpr std::int64_t line(std::int64_t n) { return (n + 31) / 32 * 32; }

// Shares out stretches of edges, always the same ones; each has memory of its own.
template <typename Body>
void by_stretches(std::int64_t edges, std::int64_t stretches, std::int32_t threads,
                  const Body& body) {
  const std::int64_t blocks = (edges + kRadialBlock - 1) / kRadialBlock;
  parallel_for(stretches, threads, [&](std::int64_t task) {
    const std::int64_t begin = blocks * task / stretches, end = blocks * (task + 1) / stretches;
    for (std::int64_t block = begin; block < end; ++block) {
      const std::int64_t from = block * kRadialBlock;
      body(task, from, std::min(kRadialBlock, edges - from));
    }
  });
}

std::int64_t stretches_of(std::int64_t edges) {
  return std::clamp<std::int64_t>(edges / (8 * kRadialBlock), 1, 16);
}

}  // namespace

template <typename T>
void radial_forward(const RadialOptions& options, const RadialWeights<T>& weights,
                    const T* distances, std::int64_t edges, T* out, T* slopes,
                    std::int32_t threads) {
  const RadialKernels& kernels = OARLOCK_KERNELS(radial_kernels);
  const Padded<T> padded(options, weights, kernels.lanes);
  const std::int64_t features = weights.features, stretches = stretches_of(edges);
  const std::int64_t pitch = line(padded.net.workspace());
  const Buffer<T> work(stretches * pitch);
  by_stretches(edges, stretches, threads, [&](std::int64_t task, std::int64_t from, std::int64_t count) {
    table<T>(kernels).forward(padded.net, distances + from, count, out + from * features,
                              slopes == nullptr ? nullptr : slopes + from * features,
                              work.data() + task * pitch);
  });
}

template <typename T>
void radial_backward(const RadialOptions& options, const RadialWeights<T>& weights,
                     const T* distances, std::int64_t edges, const T* a, const T* b,
                     const WeightGradients<T>& gradients, std::int32_t threads) {
  const RadialKernels& kernels = OARLOCK_KERNELS(radial_kernels);
  const Padded<T> padded(options, weights, kernels.lanes);
  const RadialNetwork<T>& net = padded.net;
  const std::int64_t features = weights.features, stretches = stretches_of(edges);
  const std::int64_t pitch = line(net.workspace());
  const Buffer<T> work(stretches * pitch);
  const std::int64_t of_first = net.hidden * net.radial_pitch;
  const std::int64_t of_last = net.inner() * net.feature_pitch;
  const std::int64_t size = line(of_first + net.hidden_pitch + of_last + net.feature_pitch);
  const Buffer<T> sums(stretches * size);
  std::fill_n(sums.data(), stretches * size, T(0));
  by_stretches(edges, stretches, threads, [&](std::int64_t task, std::int64_t from, std::int64_t count) {
    T* const own = sums.data() + task * size;
    const RadialGradients<T> to = {own, own + of_first, own + of_first + net.hidden_pitch,
                                   own + of_first + net.hidden_pitch + of_last};
    table<T>(kernels).backward(net, distances + from, count,
                               a == nullptr ? nullptr : a + from * features,
                               b == nullptr ? nullptr : b + from * features, to,
                               work.data() + task * pitch);
  });
  T* const all = sums.data();
  for (std::int64_t task = 1; task < stretches; ++task)
    for (std::int64_t k = 0; k < size; ++k) all[k] += all[task * size + k];
  const auto unpad = [](const T* from, std::int64_t rows, std::int64_t columns, std::int64_t pitch,
                        T* to) {
    for (std::int64_t row = 0; row < rows; ++row)
      std::copy_n(from + row * pitch, columns, to + row * columns);
  };
  if (net.hidden) {
    for (std::int64_t k = 0; k < net.radial; ++k)
      for (std::int64_t h = 0; h < net.hidden; ++h)
        gradients.first[k * net.hidden + h] = all[h * net.radial_pitch + k];
    unpad(all + of_first, 1, net.hidden, net.hidden_pitch, gradients.first_bias);
  }
  const T* const last = all + of_first + net.hidden_pitch;
  unpad(last, net.inner(), net.features, net.feature_pitch, gradients.last);
  unpad(last + of_last, 1, net.features, net.feature_pitch, gradients.last_bias);
}

template <typename T>
void radial_curvature(const RadialOptions& options, const RadialWeights<T>& weights,
                      const T* distances, std::int64_t edges, const T* b, T* out,
                      std::int32_t threads) {
  const RadialKernels& kernels = OARLOCK_KERNELS(radial_kernels);
  const Padded<T> padded(options, weights, kernels.lanes);
  const std::int64_t stretches = stretches_of(edges), pitch = line(padded.net.workspace());
  const Buffer<T> work(stretches * pitch);
  by_stretches(edges, stretches, threads, [&](std::int64_t task, std::int64_t from, std::int64_t count) {
    table<T>(kernels).curvature(padded.net, distances + from, count, b + from * weights.features,
                                out + from, work.data() + task * pitch);
  });
}

#define OARLOCK_INSTANTIATE(T)                                                                    \
  template void radial_forward<T>(const RadialOptions&, const RadialWeights<T>&, const T*,        \
                                  std::int64_t, T*, T*, std::int32_t);                            \
  template void radial_backward<T>(const RadialOptions&, const RadialWeights<T>&, const T*,       \
                                   std::int64_t, const T*, const T*, const WeightGradients<T>&,   \
                                   std::int32_t);                                                 \
  template void radial_curvature<T>(const RadialOptions&, const RadialWeights<T>&, const T*,      \
                                    std::int64_t, const T*, T*, std::int32_t);
OARLOCK_INSTANTIATE(float)
OARLOCK_INSTANTIATE(double)

}  // namespace oarlock::atoms
