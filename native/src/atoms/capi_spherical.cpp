// Entry points of frames, rotations, harmonics and powers on a sphere.

#include <algorithm>

#include "atoms/powers_kernels.h"
#include "atoms/spherical_arguments.h"
#include "atoms/spherical_kernels.h"
#include "core/dispatch.h"
#include "core/parallel.h"

OARLOCK_DECLARE_KERNELS(oarlock::atoms::SphericalKernels<float>, spherical_kernels_float)
OARLOCK_DECLARE_KERNELS(oarlock::atoms::SphericalKernels<double>, spherical_kernels_double)
OARLOCK_DECLARE_KERNELS(oarlock::atoms::PowersKernels<float>, powers_kernels_float)
OARLOCK_DECLARE_KERNELS(oarlock::atoms::PowersKernels<double>, powers_kernels_double)

using namespace oarlock;
using namespace oarlock::atoms;

namespace {

constexpr std::int64_t kTaskEdges = 1024, kTaskAtoms = 32;

const SphericalKernels<float>& spherical(float) { return OARLOCK_KERNELS(spherical_kernels_float); }
const SphericalKernels<double>& spherical(double) { return OARLOCK_KERNELS(spherical_kernels_double); }
const PowersKernels<float>& powers(float) { return OARLOCK_KERNELS(powers_kernels_float); }
const PowersKernels<double>& powers(double) { return OARLOCK_KERNELS(powers_kernels_double); }

template <typename Body>
void in_parts(std::int64_t count, std::int64_t size, std::int32_t threads, const Body& body) {
  parallel_for((count + size - 1) / size, threads, [&](std::int64_t task) {
    body(task * size, std::min(count, (task + 1) * size));
  });
}

// The degree of which `size(degree)` is `length`.
template <typename Size>
int degree_of(const oarlock_tensors& list, std::int64_t length, const Size& size, const char* what) {
  for (int degree = 0; degree <= kMaxDegree; ++degree)
    if (size(degree) == length) return degree;
  throw BadArgument(item_name(list, 0) + " of shape " + shape_text(list.items[0]) + " has " +
                    std::to_string(length) + " " + what + ", which is no degree from 0 to " +
                    std::to_string(kMaxDegree));
}

}  // namespace

// frames [E, frame_size(degree)] of vectors [E, 3].
OARLOCK_API std::int32_t oarlock_atoms_frames(const oarlock_tensors* vectors,
                                              const oarlock_tensors* frames, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const std::int32_t dtype = real_dtype(*vectors);
    const oarlock_tensor& from = tensor(*vectors, Access::read, dtype, {-1, 3});
    const oarlock_tensor& to = tensor(*frames, Access::write, dtype, {from.shape[0], -1});
    const int degree = degree_of(*frames, to.shape[1], frame_size, "numbers a frame");
    check_overlap({{*vectors, Access::read}, {*frames, Access::write}});
    with_dtype(dtype, [&](auto kind) {
      using T = decltype(kind);
      in_parts(from.shape[0], kTaskEdges, threads, [&](std::int64_t begin, std::int64_t end) {
        spherical(T{}).frames(static_cast<const T*>(from.data), degree, static_cast<T*>(to.data), begin,
                              end);
      });
    });
  });
}

// out = D x, or Dᵀ x; both [E, components, channels].
OARLOCK_API std::int32_t oarlock_atoms_rotate(const oarlock_tensors* frames, const oarlock_tensors* x,
                                              const oarlock_tensors* out, std::int32_t inverse,
                                              std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const std::int32_t dtype = real_dtype(*frames);
    const oarlock_tensor& turn = tensor(*frames, Access::read, dtype, {-1, -1});
    const int degree = degree_of(*frames, turn.shape[1], frame_size, "numbers a frame");
    const oarlock_tensor& from =
        tensor(*x, Access::read, dtype, {turn.shape[0], components(degree), -1});
    const oarlock_tensor& to =
        tensor(*out, Access::write, dtype, {turn.shape[0], components(degree), from.shape[2]});
    check_overlap({{*frames, Access::read}, {*x, Access::read}, {*out, Access::write}});
    with_dtype(dtype, [&](auto kind) {
      using T = decltype(kind);
      in_parts(turn.shape[0], kTaskEdges / 8, threads, [&](std::int64_t begin, std::int64_t end) {
        spherical(T{}).rotate(static_cast<const T*>(turn.data), degree, inverse != 0,
                              static_cast<const T*>(from.data), from.shape[2],
                              static_cast<T*>(to.data), begin, end);
      });
    });
  });
}

// values [E, components] of vectors [E, 3]; gradients and hessians are empty lists or one tensor each.
OARLOCK_API std::int32_t oarlock_atoms_harmonics(const oarlock_tensors* vectors,
                                                 const oarlock_tensors* values,
                                                 const oarlock_tensors* gradients,
                                                 const oarlock_tensors* hessians,
                                                 std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const std::int32_t dtype = real_dtype(*vectors);
    const oarlock_tensor& from = tensor(*vectors, Access::read, dtype, {-1, 3});
    const std::int64_t edges = from.shape[0];
    const oarlock_tensor& to = tensor(*values, Access::write, dtype, {edges, -1});
    const int degree = degree_of(*values, to.shape[1], components, "harmonics");
    void *slopes = nullptr, *curves = nullptr;
    if (gradients->count)
      slopes = tensor(*gradients, Access::write, dtype, {edges, to.shape[1], 3}).data;
    if (hessians->count)
      curves = tensor(*hessians, Access::write, dtype, {edges, to.shape[1], 3, 3}).data;
    check_overlap({{*vectors, Access::read}, {*values, Access::write}, {*gradients, Access::write},
                   {*hessians, Access::write}});
    with_dtype(dtype, [&](auto kind) {
      using T = decltype(kind);
      in_parts(edges, kTaskEdges, threads, [&](std::int64_t begin, std::int64_t end) {
        spherical(T{}).harmonics(static_cast<const T*>(from.data), degree, static_cast<T*>(to.data),
                                 static_cast<T*>(slopes), static_cast<T*>(curves), begin, end);
      });
    });
  });
}

namespace {

// What all three entry points of powers read: h and the points, and the shape of the result.
template <typename T>
Powers<T> read_powers(const oarlock_tensors& x, const oarlock_tensors& values,
                      const oarlock_tensors& weights, const oarlock_tensors& out, FeatureShape& in,
                      FeatureShape& result, std::int32_t dtype, Access access) {
  in = feature_shape(x, Access::read, dtype);
  result = feature_shape(out, access, dtype);
  if (in.degree < 1 || result.degree > in.degree || result.rows != in.rows ||
      result.channels != 2 * in.channels)
    throw BadArgument(std::string(out.name) + " must have the atoms of " + x.name +
                      ", twice its channels, and a degree up to its own, which must be 1 or more");
  Powers<T> work{};
  work.channels = in.channels;
  const oarlock_tensor& at = tensor(values, Access::read, dtype, {-1, components(in.degree)});
  work.points = at.shape[0];
  work.values = static_cast<const T*>(at.data);
  work.weights = static_cast<const T*>(
      tensor(weights, Access::read, dtype, {work.points, components(result.degree)}).data);
  set_pointers<const T>(x, work.in);
  return work;
}

}  // namespace

// out[:, :, :C] and out[:, :, C:], the components of f² and f³.
OARLOCK_API std::int32_t oarlock_atoms_powers(const oarlock_tensors* x, const oarlock_tensors* values,
                                              const oarlock_tensors* weights,
                                              const oarlock_tensors* out, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const std::int32_t dtype = real_dtype(*x);
    with_dtype(dtype, [&](auto kind) {
      using T = decltype(kind);
      FeatureShape in, result;
      Powers<T> work = read_powers<T>(*x, *values, *weights, *out, in, result, dtype, Access::write);
      check_overlap({{*x, Access::read}, {*out, Access::write}});
      set_pointers<T>(*out, work.out);
      const auto kernel = powers(T{}).forward.at[in.degree][result.degree];
      in_parts(in.rows, kTaskAtoms, threads, [&](std::int64_t a, std::int64_t b) { kernel(work, a, b); });
    });
  });
}

// in_slope: the gradient by x.
OARLOCK_API std::int32_t oarlock_atoms_powers_backward(
    const oarlock_tensors* x, const oarlock_tensors* values, const oarlock_tensors* weights,
    const oarlock_tensors* out_slope, const oarlock_tensors* in_slope, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const std::int32_t dtype = real_dtype(*x);
    with_dtype(dtype, [&](auto kind) {
      using T = decltype(kind);
      FeatureShape in, result;
      Powers<T> work = read_powers<T>(*x, *values, *weights, *out_slope, in, result, dtype, Access::read);
      check_features(*in_slope, Access::write, dtype, in);
      check_overlap({{*x, Access::read}, {*out_slope, Access::read}, {*in_slope, Access::write}});
      set_pointers<const T>(*out_slope, work.out_slope);
      set_pointers<T>(*in_slope, work.in_slope);
      const auto kernel = powers(T{}).backward.at[in.degree][result.degree];
      in_parts(in.rows, kTaskAtoms, threads, [&](std::int64_t a, std::int64_t b) { kernel(work, a, b); });
    });
  });
}

// out: the direction of the result; in_slope: the gradient by x of out · out_slope.
OARLOCK_API std::int32_t oarlock_atoms_powers_second(
    const oarlock_tensors* x, const oarlock_tensors* x_tangent, const oarlock_tensors* values,
    const oarlock_tensors* weights, const oarlock_tensors* out_slope, const oarlock_tensors* out,
    const oarlock_tensors* in_slope, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const std::int32_t dtype = real_dtype(*x);
    with_dtype(dtype, [&](auto kind) {
      using T = decltype(kind);
      FeatureShape in, result;
      Powers<T> work = read_powers<T>(*x, *values, *weights, *out_slope, in, result, dtype, Access::read);
      check_features(*x_tangent, Access::read, dtype, in);
      check_features(*out, Access::write, dtype, result);
      check_features(*in_slope, Access::write, dtype, in);
      check_overlap({{*x, Access::read}, {*x_tangent, Access::read}, {*out_slope, Access::read},
                     {*out, Access::write}, {*in_slope, Access::write}});
      set_pointers<const T>(*x_tangent, work.in_tangent);
      set_pointers<const T>(*out_slope, work.out_slope);
      set_pointers<T>(*out, work.out);
      set_pointers<T>(*in_slope, work.in_slope);
      const auto kernel = powers(T{}).second.at[in.degree][result.degree];
      in_parts(in.rows, kTaskAtoms, threads, [&](std::int64_t a, std::int64_t b) { kernel(work, a, b); });
    });
  });
}
