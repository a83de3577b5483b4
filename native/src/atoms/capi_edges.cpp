// Entry points of sums over edges, and of elementwise functions of rows.

#include <algorithm>
#include <cstring>

#include "atoms/arguments.h"
#include "atoms/edges_kernels.h"
#include "core/dispatch.h"
#include "core/error.h"
#include "core/parallel.h"

OARLOCK_DECLARE_KERNELS(oarlock::atoms::EdgeKernels, edge_kernels)

using namespace oarlock;
using namespace oarlock::atoms;

namespace {

template <typename T>
const EdgeTable<T>& table() {
  const EdgeKernels& kernels = OARLOCK_KERNELS(edge_kernels);
  if constexpr (sizeof(T) == sizeof(float))
    return kernels.single;
  else
    return kernels.twice;
}

// Calls body(T()) with the type of the tensor.
template <typename Body>
void with_type(const oarlock_tensors& list, const Body& body) {
  if (floating(list) == kFloat32)
    body(float());
  else
    body(double());
}

// Columns that a thread takes at a time; whole lines of the cache.
constexpr std::int64_t kColumns = 64;
// Rows that a thread takes at a time.
constexpr std::int64_t kRows = 256;

template <typename Body>
void by_columns(std::int64_t width, std::int32_t threads, const Body& body) {
  const std::int64_t tasks = threads == 1 ? 1 : (width + kColumns - 1) / kColumns;
  const std::int64_t columns = threads == 1 ? width : kColumns;
  parallel_for(tasks, threads, [&](std::int64_t task) {
    body(task * columns, std::min(width, (task + 1) * columns));
  });
}

template <typename Body>
void by_rows(std::int64_t rows, std::int32_t threads, const Body& body) {
  parallel_for((rows + kRows - 1) / kRows, threads, [&](std::int64_t task) {
    body(task * kRows, std::min(rows, (task + 1) * kRows));
  });
}

Pairs pairs(const oarlock_tensors& first, const oarlock_tensors& second, std::int64_t both,
            std::int64_t of_first, std::int64_t of_second) {
  Pairs p;
  p.first = index(first, -1, of_first);
  p.count = first.items[0].count;
  p.second = index(second, p.count, of_second);
  p.both = both;
  if (both < 0 || both > p.count)
    throw BadArgument("both must be in [0, " + text(p.count) + "], not " + text(both));
  if (both > 0 && of_first != of_second)
    throw BadArgument("both needs as many atoms at either end, not " + text(of_first) + " and " +
                      text(of_second));
  return p;
}

}  // namespace

// out[first] = Σ features[second] ∘ filters; features [N, C, F], filters [P, F], out [M, C, F].
OARLOCK_API std::int32_t oarlock_atoms_filter_sums(
    const oarlock_tensors* features, const oarlock_tensors* filters, const oarlock_tensors* first,
    const oarlock_tensors* second, const oarlock_tensors* out, std::int64_t both,
    std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    with_type(*features, [&](auto type) {
      using T = decltype(type);
      const std::int32_t dtype = features->items[0].dtype;
      const oarlock_tensor& x = tensor(*features, dtype, {-1, -1, -1}, Access::read);
      const std::int64_t channels = x.shape[1], width = x.shape[2];
      const oarlock_tensor& y = tensor(*out, dtype, {-1, channels, width}, Access::write);
      const Pairs p = pairs(*first, *second, both, y.shape[0], x.shape[0]);
      const oarlock_tensor& w = tensor(*filters, dtype, {p.count, width}, Access::read);
      check_overlap({{*features, Access::read}, {*filters, Access::read}, {*out, Access::write}});
      std::memset(y.data, 0, y.count * sizeof(T));
      const EdgeTable<T>& kernels = table<T>();
      for (std::int64_t c = 0; c < channels; ++c)
        by_columns(width, threads, [&](std::int64_t begin, std::int64_t end) {
          kernels.convolve(data<const T>(x) + c * width, data<const T>(w), p,
                           {width, channels * width, begin, end}, data<T>(y) + c * width);
        });
    });
  });
}

// out[p] = Σ over channels of a[first] ∘ b[second]; a [N, C, F], b [M, C, F], out [P, F].
OARLOCK_API std::int32_t oarlock_atoms_multiply(
    const oarlock_tensors* a, const oarlock_tensors* b, const oarlock_tensors* first,
    const oarlock_tensors* second, const oarlock_tensors* out, std::int64_t both,
    std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    with_type(*a, [&](auto type) {
      using T = decltype(type);
      const std::int32_t dtype = a->items[0].dtype;
      const oarlock_tensor& x = tensor(*a, dtype, {-1, -1, -1}, Access::read);
      const std::int64_t channels = x.shape[1], width = x.shape[2];
      const oarlock_tensor& y = tensor(*b, dtype, {-1, channels, width}, Access::read);
      const Pairs p = pairs(*first, *second, both, x.shape[0], y.shape[0]);
      const oarlock_tensor& w = tensor(*out, dtype, {p.count, width}, Access::write);
      check_overlap({{*a, Access::read}, {*b, Access::read}, {*out, Access::write}});
      const EdgeTable<T>& kernels = table<T>();
      by_rows(p.count, threads, [&](std::int64_t begin, std::int64_t end) {
        kernels.multiply(data<const T>(x), data<const T>(y), p, begin, end, channels, width,
                         data<T>(w));
      });
    });
  });
}

// out = values[index]; values [N, F], out [E, F].
OARLOCK_API std::int32_t oarlock_atoms_gather(const oarlock_tensors* values,
                                              const oarlock_tensors* index_of,
                                              const oarlock_tensors* out, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    with_type(*values, [&](auto type) {
      using T = decltype(type);
      const std::int32_t dtype = values->items[0].dtype;
      const oarlock_tensor& x = tensor(*values, dtype, {-1, -1}, Access::read);
      const std::int64_t width = x.shape[1];
      const std::int64_t* const from = index(*index_of, -1, x.shape[0]);
      const std::int64_t rows = index_of->items[0].count;
      T* const to = data<T>(tensor(*out, dtype, {rows, width}, Access::write));
      check_overlap({{*values, Access::read}, {*out, Access::write}});
      by_rows(rows, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t e = begin; e < end; ++e)
          std::copy_n(data<const T>(x) + from[e] * width, width, to + e * width);
      });
    });
  });
}

// out[index] = Σ values; values [E, F], out [N, F].
OARLOCK_API std::int32_t oarlock_atoms_scatter_sum(const oarlock_tensors* values,
                                                   const oarlock_tensors* index_of,
                                                   const oarlock_tensors* out,
                                                   std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    with_type(*values, [&](auto type) {
      using T = decltype(type);
      const std::int32_t dtype = values->items[0].dtype;
      const oarlock_tensor& x = tensor(*values, dtype, {-1, -1}, Access::read);
      const std::int64_t rows = x.shape[0], width = x.shape[1];
      const oarlock_tensor& y = tensor(*out, dtype, {-1, width}, Access::write);
      const std::int64_t* const to = index(*index_of, rows, y.shape[0]);
      check_overlap({{*values, Access::read}, {*out, Access::write}});
      std::memset(y.data, 0, y.count * sizeof(T));
      const EdgeTable<T>& kernels = table<T>();
      by_columns(width, threads, [&](std::int64_t begin, std::int64_t end) {
        kernels.scatter(data<const T>(x), to, rows, {width, width, begin, end}, data<T>(y));
      });
    });
  });
}

// out[e] = x[e] · y[e]; x and y [E, F].
OARLOCK_API std::int32_t oarlock_atoms_row_dots(const oarlock_tensors* x, const oarlock_tensors* y,
                                                const oarlock_tensors* out, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    with_type(*x, [&](auto type) {
      using T = decltype(type);
      const std::int32_t dtype = x->items[0].dtype;
      const oarlock_tensor& a = tensor(*x, dtype, {-1, -1}, Access::read);
      const std::int64_t rows = a.shape[0], width = a.shape[1];
      const T* const b = data<const T>(tensor(*y, dtype, {rows, width}, Access::read));
      T* const to = data<T>(tensor(*out, dtype, {rows}, Access::write));
      check_overlap({{*x, Access::read}, {*y, Access::read}, {*out, Access::write}});
      const EdgeTable<T>& kernels = table<T>();
      by_rows(rows, threads, [&](std::int64_t begin, std::int64_t end) {
        kernels.dot(data<const T>(a) + begin * width, b + begin * width, end - begin, width,
                    to + begin);
      });
    });
  });
}

// out[e] = x[e] s[e]; x [E, F], s [E].
OARLOCK_API std::int32_t oarlock_atoms_scale_rows(const oarlock_tensors* x,
                                                  const oarlock_tensors* factors,
                                                  const oarlock_tensors* out,
                                                  std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    with_type(*x, [&](auto type) {
      using T = decltype(type);
      const std::int32_t dtype = x->items[0].dtype;
      const oarlock_tensor& a = tensor(*x, dtype, {-1, -1}, Access::read);
      const std::int64_t rows = a.shape[0], width = a.shape[1];
      const T* const s = data<const T>(tensor(*factors, dtype, {rows}, Access::read));
      T* const to = data<T>(tensor(*out, dtype, {rows, width}, Access::write));
      check_overlap({{*x, Access::read}, {*factors, Access::read}, {*out, Access::write}});
      const EdgeTable<T>& kernels = table<T>();
      by_rows(rows, threads, [&](std::int64_t begin, std::int64_t end) {
        kernels.scale(data<const T>(a) + begin * width, s + begin, end - begin, width,
                      to + begin * width);
      });
    });
  });
}

// out[f] = Σ over rows of x; x [E, F].
OARLOCK_API std::int32_t oarlock_atoms_column_sums(const oarlock_tensors* x,
                                                   const oarlock_tensors* out) {
  return guarded([&] {
    with_type(*x, [&](auto type) {
      using T = decltype(type);
      const std::int32_t dtype = x->items[0].dtype;
      const oarlock_tensor& a = tensor(*x, dtype, {-1, -1}, Access::read);
      T* const to = data<T>(tensor(*out, dtype, {a.shape[1]}, Access::write));
      check_overlap({{*x, Access::read}, {*out, Access::write}});
      std::fill_n(to, a.shape[1], T(0));
      table<T>().sum(data<const T>(a), a.shape[0], a.shape[1], to);
    });
  });
}

// out = f⁽ᵒʳᵈᵉʳ⁾(x + bias) ∘ g ∘ h; x [E, F], bias [F] or empty, g and h like x or empty.
OARLOCK_API std::int32_t oarlock_atoms_activation(const oarlock_tensors* x,
                                                  const oarlock_tensors* bias,
                                                  const oarlock_tensors* g,
                                                  const oarlock_tensors* h,
                                                  const oarlock_tensors* out, std::int32_t silu,
                                                  std::int32_t order, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    if (order < 0 || order > 3)
      throw BadArgument("order must be 0, 1, 2 or 3, not " + text(order));
    with_type(*x, [&](auto type) {
      using T = decltype(type);
      const std::int32_t dtype = x->items[0].dtype;
      const oarlock_tensor& a = tensor(*x, dtype, {-1, -1}, Access::read);
      const std::int64_t rows = a.shape[0], width = a.shape[1];
      const auto optional = [&](const oarlock_tensors& list, const std::vector<std::int64_t>& shape) {
        if (list.count == 0) return static_cast<const T*>(nullptr);
        return data<const T>(tensor(list, dtype, shape, Access::read));
      };
      const T* const added = optional(*bias, {width});
      const T* const left = optional(*g, {rows, width});
      const T* const right = optional(*h, {rows, width});
      T* const to = data<T>(tensor(*out, dtype, {rows, width}, Access::write));
      check_overlap({{*x, Access::read}, {*bias, Access::read}, {*g, Access::read},
                     {*h, Access::read}, {*out, Access::write}});
      const EdgeTable<T>& kernels = table<T>();
      by_rows(rows, threads, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t at = begin * width;
        kernels.activate(data<const T>(a) + at, added, left == nullptr ? left : left + at,
                         right == nullptr ? right : right + at, end - begin, width, silu, order,
                         to + at);
      });
    });
  });
}
