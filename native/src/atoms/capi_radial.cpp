// Entry points of radial filters.

#include "atoms/arguments.h"
#include "atoms/radial.h"
#include "core/error.h"

using namespace oarlock;
using namespace oarlock::atoms;

namespace {

template <typename Body>
void with_type(const oarlock_tensors& list, const Body& body) {
  if (floating(list) == kFloat32)
    body(float());
  else
    body(double());
}

void check(const RadialOptions& o) {
  if (!(o.cutoff > 0)) throw BadArgument("cutoff must be positive, not " + std::to_string(o.cutoff));
  if (o.basis == kGaussians && !(o.width > 0))
    throw BadArgument("width must be positive, not " + std::to_string(o.width));
  if (o.cut == kPolynomial && (o.power < 2 || o.power > 64))
    throw BadArgument("power must be in [2, 64], not " + text(o.power));
}

// The lists `first` and `first_bias` are empty where there is no hidden layer.
template <typename T>
RadialWeights<T> weights(const oarlock_tensors& parameters, const oarlock_tensors& first,
                         const oarlock_tensors& first_bias, const oarlock_tensors& last,
                         const oarlock_tensors& last_bias, Access access) {
  const std::int32_t dtype = floating(parameters);
  const auto read = [&](const oarlock_tensors& list, const std::vector<std::int64_t>& shape) {
    return static_cast<const T*>(tensor(list, dtype, shape, access).data);
  };
  RadialWeights<T> w = {};
  w.parameters = static_cast<const T*>(tensor(parameters, dtype, {-1}, Access::read).data);
  w.radial = parameters.items[0].count;
  w.hidden = 0;
  if (first.count > 0) {
    w.first = read(first, {w.radial, -1});
    w.hidden = first.items[0].shape[1];
    w.first_bias = read(first_bias, {w.hidden});
    if (w.hidden == 0) throw BadArgument("first[0] has no columns, but a hidden layer needs some");
  }
  w.last = read(last, {w.hidden ? w.hidden : w.radial, -1});
  w.features = last.items[0].shape[1];
  w.last_bias = read(last_bias, {w.features});
  return w;
}

}  // namespace

// out [P, F]; slopes [P, F] or an empty list.
OARLOCK_API std::int32_t oarlock_atoms_radial_forward(
    const oarlock_tensors* distances, const oarlock_tensors* parameters,
    const oarlock_tensors* first, const oarlock_tensors* first_bias, const oarlock_tensors* last,
    const oarlock_tensors* last_bias, const oarlock_tensors* out, const oarlock_tensors* slopes,
    const RadialOptions* options, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check(*options);
    with_type(*distances, [&](auto type) {
      using T = decltype(type);
      const std::int32_t dtype = distances->items[0].dtype;
      const oarlock_tensor& r = tensor(*distances, dtype, {-1}, Access::read);
      check_dtype(*parameters, {dtype});
      const auto w = weights<T>(*parameters, *first, *first_bias, *last, *last_bias, Access::read);
      const std::vector<std::int64_t> shape = {r.count, w.features};
      T* const to = data<T>(tensor(*out, dtype, shape, Access::write));
      T* const by = slopes->count ? data<T>(tensor(*slopes, dtype, shape, Access::write)) : nullptr;
      check_overlap({{*distances, Access::read}, {*first, Access::read}, {*last, Access::read},
                     {*out, Access::write}, {*slopes, Access::write}});
      radial_forward<T>(*options, w, data<const T>(r), r.count, to, by, threads);
    });
  });
}

// Gradients by the weights of Σ a ∘ w + b ∘ dw/dr; a and b [P, F], either may be an empty list.
OARLOCK_API std::int32_t oarlock_atoms_radial_backward(
    const oarlock_tensors* distances, const oarlock_tensors* parameters,
    const oarlock_tensors* first, const oarlock_tensors* first_bias, const oarlock_tensors* last,
    const oarlock_tensors* last_bias, const oarlock_tensors* a, const oarlock_tensors* b,
    const oarlock_tensors* of_first, const oarlock_tensors* of_first_bias,
    const oarlock_tensors* of_last, const oarlock_tensors* of_last_bias,
    const RadialOptions* options, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check(*options);
    with_type(*distances, [&](auto type) {
      using T = decltype(type);
      const std::int32_t dtype = distances->items[0].dtype;
      const oarlock_tensor& r = tensor(*distances, dtype, {-1}, Access::read);
      check_dtype(*parameters, {dtype});
      const auto w = weights<T>(*parameters, *first, *first_bias, *last, *last_bias, Access::read);
      const auto found = weights<T>(*parameters, *of_first, *of_first_bias, *of_last,
                                    *of_last_bias, Access::write);
      if (found.hidden != w.hidden || found.features != w.features)
        throw BadArgument("the gradients must have the shapes of the weights");
      const auto rows = [&](const oarlock_tensors& list) {
        if (list.count == 0) return static_cast<const T*>(nullptr);
        return data<const T>(tensor(list, dtype, {r.count, w.features}, Access::read));
      };
      const T *const of_values = rows(*a), *const of_slopes = rows(*b);
      if (of_values == nullptr && of_slopes == nullptr)
        throw BadArgument("a and b are both empty lists: give one of them");
      const WeightGradients<T> to = {const_cast<T*>(found.first), const_cast<T*>(found.first_bias),
                                     const_cast<T*>(found.last), const_cast<T*>(found.last_bias)};
      radial_backward<T>(*options, w, data<const T>(r), r.count, of_values, of_slopes, to, threads);
    });
  });
}

// out[p] = b[p] · d²w/dr²; b [P, F].
OARLOCK_API std::int32_t oarlock_atoms_radial_curvature(
    const oarlock_tensors* distances, const oarlock_tensors* parameters,
    const oarlock_tensors* first, const oarlock_tensors* first_bias, const oarlock_tensors* last,
    const oarlock_tensors* last_bias, const oarlock_tensors* b, const oarlock_tensors* out,
    const RadialOptions* options, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    check(*options);
    with_type(*distances, [&](auto type) {
      using T = decltype(type);
      const std::int32_t dtype = distances->items[0].dtype;
      const oarlock_tensor& r = tensor(*distances, dtype, {-1}, Access::read);
      check_dtype(*parameters, {dtype});
      const auto w = weights<T>(*parameters, *first, *first_bias, *last, *last_bias, Access::read);
      const T* const rows = data<const T>(tensor(*b, dtype, {r.count, w.features}, Access::read));
      T* const to = data<T>(tensor(*out, dtype, {r.count}, Access::write));
      radial_curvature<T>(*options, w, data<const T>(r), r.count, rows, to, threads);
    });
  });
}
