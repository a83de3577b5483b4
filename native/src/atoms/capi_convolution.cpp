// Entry points of convolutions in the frames of edges.

#include <algorithm>
#include <cmath>

#include "atoms/spherical_arguments.h"
#include "core/dispatch.h"
#include "core/parallel.h"

OARLOCK_DECLARE_KERNELS(oarlock::atoms::ConvolutionKernels<float>, convolution_kernels_float)
OARLOCK_DECLARE_KERNELS(oarlock::atoms::ConvolutionKernels<double>, convolution_kernels_double)

using namespace oarlock;
using namespace oarlock::atoms;

namespace {

constexpr std::int64_t kTaskAtoms = 8;
// Sums over edges of what belongs to no atom are taken over at most so many parts, whatever the threads.
constexpr std::int64_t kTableParts = 8, kPartAtoms = 64;

const ConvolutionKernels<float>& kernels(float) { return OARLOCK_KERNELS(convolution_kernels_float); }
const ConvolutionKernels<double>& kernels(double) { return OARLOCK_KERNELS(convolution_kernels_double); }

// Edges with their far ends; by neighbour they are sorted anew.
struct Edges {
  std::vector<std::int64_t> offsets, order, centers;
  EdgeList list;
};

Edges read_edges(const oarlock_tensors& offsets, const oarlock_tensors& neighbours, std::int64_t atoms,
                 std::int64_t edges, bool by_neighbour) {
  constexpr std::int32_t kInt64 = 0 << 8 | 64;
  const oarlock_tensor& far = tensor(neighbours, Access::read, kInt64, {edges});
  const auto* begins =
      static_cast<const std::int64_t*>(tensor(offsets, Access::read, kInt64, {atoms + 1}).data);
  const auto* ends = static_cast<const std::int64_t*>(far.data);
  bool rising = begins[0] == 0 && begins[atoms] == edges;
  for (std::int64_t i = 0; i < atoms && rising; ++i) rising = begins[i] <= begins[i + 1];
  if (!rising)
    throw BadArgument(std::string(offsets.name) + " must rise from 0 to the " + std::to_string(edges) +
                      " edges that " + neighbours.name + " has");
  for (std::int64_t i = 0; i < edges; ++i)
    if (ends[i] < 0 || ends[i] >= atoms)
      throw BadArgument(std::string(neighbours.name) + " holds " + std::to_string(ends[i]) + " at " +
                        std::to_string(i) + ", but there are atoms 0 to " + std::to_string(atoms - 1));
  Edges found;
  if (!by_neighbour) {
    found.list = {begins, nullptr, ends};
    return found;
  }
  found.offsets.assign(atoms + 2, 0);
  for (std::int64_t i = 0; i < edges; ++i) ++found.offsets[ends[i] + 2];
  for (std::int64_t i = 0; i < atoms; ++i) found.offsets[i + 2] += found.offsets[i + 1];
  found.order.resize(edges);
  found.centers.resize(edges);
  for (std::int64_t atom = 0; atom < atoms; ++atom)
    for (std::int64_t i = begins[atom]; i < begins[atom + 1]; ++i) {
      found.centers[i] = atom;
      found.order[found.offsets[ends[i] + 1]++] = i;
    }
  found.list = {found.offsets.data(), found.order.data(), found.centers.data()};
  return found;
}

struct Shapes {
  FeatureShape in, out;
  std::int64_t edges;
};

// What all entry points read; `out` is the result or its gradient.
template <typename T>
Convolution<T> read(const oarlock_tensors& x, const oarlock_tensors& table,
                    const oarlock_tensors& frames, const oarlock_tensors& out, double cutoff,
                    Access access, std::int32_t dtype, Shapes& shapes) {
  shapes.in = feature_shape(x, Access::read, dtype);
  shapes.out = feature_shape(out, access, dtype);
  if (shapes.out.degree < 1 || shapes.out.degree < shapes.in.degree ||
      shapes.out.rows != shapes.in.rows || shapes.out.channels != shapes.in.channels)
    throw BadArgument(std::string(out.name) + " must have the atoms and channels of " + x.name +
                      ", and a degree of 1 or more that is at least its own");
  if (!(cutoff > 0) || !std::isfinite(cutoff)) throw BadArgument("cutoff must be a positive length");
  const oarlock_tensor& frame =
      tensor(frames, Access::read, dtype, {-1, frame_size(shapes.out.degree)});
  const oarlock_tensor& weights = tensor(
      table, Access::read, dtype, {-1, paths(shapes.in.degree, shapes.out.degree), shapes.in.channels});
  if (weights.shape[0] < 4)
    throw BadArgument(item_name(table, 0) + " has " + std::to_string(weights.shape[0]) +
                      " rows; there must be 4 or more");
  shapes.edges = frame.shape[0];
  Convolution<T> work{};
  work.channels = shapes.in.channels;
  work.frame = frame.shape[1];
  work.intervals = weights.shape[0] - 3;
  work.cutoff = static_cast<T>(cutoff);
  work.frames = static_cast<const T*>(frame.data);
  work.table = static_cast<const T*>(weights.data);
  set_pointers<const T>(x, work.in);
  return work;
}

template <typename T>
void run(ConvolutionKernel<T> kernel, const Convolution<T>& work, std::int64_t atoms,
         std::int32_t threads) {
  parallel_for((atoms + kTaskAtoms - 1) / kTaskAtoms, threads, [&](std::int64_t task) {
    kernel(work, task * kTaskAtoms, std::min(atoms, (task + 1) * kTaskAtoms));
  });
}

// ... where the gradient by the table is wanted too: each part has one of its own, added up in order.
template <typename T>
void run_with_table(ConvolutionKernel<T> kernel, const Convolution<T>& work, std::int64_t atoms, T* slope,
                    std::int64_t size, std::int32_t threads) {
  std::fill_n(slope, size, T(0));
  const std::int64_t parts = std::clamp<std::int64_t>(atoms / kPartAtoms, 1, kTableParts);
  std::vector<T> others(static_cast<std::size_t>((parts - 1) * size));
  parallel_for(parts, threads, [&](std::int64_t part) {
    Convolution<T> own = work;
    own.table_slope = part == 0 ? slope : others.data() + (part - 1) * size;
    kernel(own, atoms * part / parts, atoms * (part + 1) / parts);
  });
  for (std::int64_t part = 1; part < parts; ++part)
    for (std::int64_t i = 0; i < size; ++i) slope[i] += others[(part - 1) * size + i];
}

}  // namespace

// out_i = Σ_j Dᵀ S(r) D x_j.
OARLOCK_API std::int32_t oarlock_atoms_turned_convolve(
    const oarlock_tensors* x, const oarlock_tensors* table, const oarlock_tensors* frames,
    const oarlock_tensors* offsets, const oarlock_tensors* neighbours, const oarlock_tensors* out,
    double cutoff, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const std::int32_t dtype = real_dtype(*x);
    with_dtype(dtype, [&](auto kind) {
      using T = decltype(kind);
      Shapes shapes;
      Convolution<T> work = read<T>(*x, *table, *frames, *out, cutoff, Access::write, dtype, shapes);
      const Edges edges = read_edges(*offsets, *neighbours, shapes.in.rows, shapes.edges, false);
      check_overlap({{*x, Access::read}, {*table, Access::read}, {*frames, Access::read},
                     {*out, Access::write}});
      work.edges = edges.list;
      set_pointers<T>(*out, work.out);
      run(kernels(T{}).forward.at[shapes.in.degree][shapes.out.degree], work, shapes.in.rows, threads);
    });
  });
}

// Gradients by x, the vectors and, if `table_slope` is not empty, the table.
OARLOCK_API std::int32_t oarlock_atoms_turned_convolve_backward(
    const oarlock_tensors* x, const oarlock_tensors* table, const oarlock_tensors* frames,
    const oarlock_tensors* offsets, const oarlock_tensors* neighbours, const oarlock_tensors* out_slope,
    const oarlock_tensors* in_slope, const oarlock_tensors* vector_slope,
    const oarlock_tensors* table_slope, double cutoff, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const std::int32_t dtype = real_dtype(*x);
    with_dtype(dtype, [&](auto kind) {
      using T = decltype(kind);
      Shapes shapes;
      Convolution<T> work = read<T>(*x, *table, *frames, *out_slope, cutoff, Access::read, dtype, shapes);
      const Edges edges = read_edges(*offsets, *neighbours, shapes.in.rows, shapes.edges, true);
      check_features(*in_slope, Access::write, dtype, shapes.in);
      work.vector_slope =
          static_cast<T*>(tensor(*vector_slope, Access::write, dtype, {shapes.edges, 3}).data);
      if (table_slope->count)
        tensor(*table_slope, Access::write, dtype,
               {table->items[0].shape[0], table->items[0].shape[1], shapes.in.channels});
      check_overlap({{*x, Access::read}, {*table, Access::read}, {*frames, Access::read},
                     {*out_slope, Access::read}, {*in_slope, Access::write},
                     {*vector_slope, Access::write}, {*table_slope, Access::write}});
      work.edges = edges.list;
      set_pointers<const T>(*out_slope, work.out_slope);
      set_pointers<T>(*in_slope, work.in_slope);
      const auto kernel = kernels(T{}).backward.at[shapes.in.degree][shapes.out.degree];
      if (table_slope->count)
        run_with_table(kernel, work, shapes.in.rows, static_cast<T*>(table_slope->items[0].data),
                       table_slope->items[0].count, threads);
      else
        run(kernel, work, shapes.in.rows, threads);
    });
  });
}

// The direction of the result that directions of x and of the vectors make.
OARLOCK_API std::int32_t oarlock_atoms_turned_convolve_tangent(
    const oarlock_tensors* x, const oarlock_tensors* x_tangent, const oarlock_tensors* table,
    const oarlock_tensors* frames, const oarlock_tensors* vector_tangent,
    const oarlock_tensors* offsets, const oarlock_tensors* neighbours, const oarlock_tensors* out,
    double cutoff, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const std::int32_t dtype = real_dtype(*x);
    with_dtype(dtype, [&](auto kind) {
      using T = decltype(kind);
      Shapes shapes;
      Convolution<T> work = read<T>(*x, *table, *frames, *out, cutoff, Access::write, dtype, shapes);
      const Edges edges = read_edges(*offsets, *neighbours, shapes.in.rows, shapes.edges, false);
      check_features(*x_tangent, Access::read, dtype, shapes.in);
      work.vector_tangent =
          static_cast<const T*>(tensor(*vector_tangent, Access::read, dtype, {shapes.edges, 3}).data);
      check_overlap({{*x, Access::read}, {*x_tangent, Access::read}, {*table, Access::read},
                     {*frames, Access::read}, {*vector_tangent, Access::read}, {*out, Access::write}});
      work.edges = edges.list;
      set_pointers<const T>(*x_tangent, work.in_tangent);
      set_pointers<T>(*out, work.out);
      run(kernels(T{}).tangent.at[shapes.in.degree][shapes.out.degree], work, shapes.in.rows, threads);
    });
  });
}

// Gradients of out_slope · (that direction) by x, the vectors and, if `table_slope` is not empty, the table.
OARLOCK_API std::int32_t oarlock_atoms_turned_convolve_second(
    const oarlock_tensors* x, const oarlock_tensors* x_tangent, const oarlock_tensors* table,
    const oarlock_tensors* frames, const oarlock_tensors* vector_tangent,
    const oarlock_tensors* offsets, const oarlock_tensors* neighbours, const oarlock_tensors* out_slope,
    const oarlock_tensors* in_slope, const oarlock_tensors* vector_slope,
    const oarlock_tensors* table_slope, double cutoff, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const std::int32_t dtype = real_dtype(*x);
    with_dtype(dtype, [&](auto kind) {
      using T = decltype(kind);
      Shapes shapes;
      Convolution<T> work = read<T>(*x, *table, *frames, *out_slope, cutoff, Access::read, dtype, shapes);
      const Edges edges = read_edges(*offsets, *neighbours, shapes.in.rows, shapes.edges, true);
      check_features(*x_tangent, Access::read, dtype, shapes.in);
      check_features(*in_slope, Access::write, dtype, shapes.in);
      work.vector_tangent =
          static_cast<const T*>(tensor(*vector_tangent, Access::read, dtype, {shapes.edges, 3}).data);
      work.vector_slope =
          static_cast<T*>(tensor(*vector_slope, Access::write, dtype, {shapes.edges, 3}).data);
      if (table_slope->count)
        tensor(*table_slope, Access::write, dtype,
               {table->items[0].shape[0], table->items[0].shape[1], shapes.in.channels});
      check_overlap({{*x, Access::read}, {*x_tangent, Access::read}, {*table, Access::read},
                     {*frames, Access::read}, {*vector_tangent, Access::read},
                     {*out_slope, Access::read}, {*in_slope, Access::write},
                     {*vector_slope, Access::write}, {*table_slope, Access::write}});
      work.edges = edges.list;
      set_pointers<const T>(*x_tangent, work.in_tangent);
      set_pointers<const T>(*out_slope, work.out_slope);
      set_pointers<T>(*in_slope, work.in_slope);
      const auto kernel = kernels(T{}).second.at[shapes.in.degree][shapes.out.degree];
      if (table_slope->count)
        run_with_table(kernel, work, shapes.in.rows, static_cast<T*>(table_slope->items[0].data),
                       table_slope->items[0].count, threads);
      else
        run(kernel, work, shapes.in.rows, threads);
    });
  });
}
