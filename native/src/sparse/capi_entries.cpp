// Entry points of products with single entries: CSR, and activations of which most are zero.

#include <algorithm>
#include <atomic>

#include "core/dispatch.h"
#include "core/error.h"
#include "core/parallel.h"
#include "sparse/entries.h"
#include "sparse/options.h"

OARLOCK_DECLARE_KERNELS(oarlock::sparse::EntryKernels, entry_kernels)

using namespace oarlock;
using namespace oarlock::sparse;

// out = S dense, S in CSR.
OARLOCK_API std::int32_t oarlock_sparse_csr_matmul(
    const oarlock_tensors* pointers, const oarlock_tensors* indices, const oarlock_tensors* values,
    const oarlock_tensors* dense, const oarlock_tensors* out, const oarlock_sparse_options* o,
    std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const bool transpose = o->transpose != 0;
    const bool transpose_dense = o->transpose_dense != 0, transpose_out = o->transpose_out != 0;
    const View factor = matrix(*dense, Access::read), result = matrix(*out, Access::write);
    const std::int64_t depth = transpose_dense ? factor.columns : factor.rows;
    const std::int64_t width = transpose_dense ? factor.rows : factor.columns;
    const std::int64_t out_rows = transpose_out ? result.columns : result.rows;
    const Structure s = structure(*pointers, *indices, transpose ? out_rows : depth);
    const float* const own = entry_values(*values, Access::read, s);
    const std::int64_t rows = transpose ? out_rows : s.rows;
    if (transpose && s.rows != depth)
      matrix(*dense, Access::read, transpose_dense ? width : s.rows,
             transpose_dense ? s.rows : width, "the sparse matrix");
    matrix(*out, Access::write, transpose_out ? width : rows, transpose_out ? rows : width,
           "the product of the sparse matrix and dense");
    check_overlap({{*values, Access::read}, {*dense, Access::read}, {*out, Access::write}});
    if (!transpose) return multiply({s, own}, factor, transpose_dense, result, transpose_out, threads);
    const Transposed t = transposed(s, rows);
    const Memory moved = gathered(own, t.entries);
    multiply({{t.pointers.data(), t.indices.data(), rows, s.entries}, moved.get()}, factor,
             transpose_dense, result, transpose_out, threads);
  });
}

// out = a b^T, or with `transpose` a^T b, where the structure has entries.
OARLOCK_API std::int32_t oarlock_sparse_csr_sample(
    const oarlock_tensors* a, const oarlock_tensors* b, const oarlock_tensors* pointers,
    const oarlock_tensors* indices, const oarlock_tensors* out, const oarlock_sparse_options* o,
    std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const bool transpose = o->transpose != 0;
    const View left = matrix(*a, Access::read), right = matrix(*b, Access::read);
    const std::int64_t columns = transpose ? right.columns : right.rows;
    const Structure s = structure(*pointers, *indices, columns);
    const std::int64_t length = transpose ? left.rows : left.columns;
    matrix(*a, Access::read, transpose ? length : s.rows, transpose ? s.rows : length,
           "the sparse matrix");
    matrix(*b, Access::read, transpose ? length : columns, transpose ? columns : length, "a");
    float* const values = entry_values(*out, Access::write, s);
    check_overlap({{*a, Access::read}, {*b, Access::read}, {*out, Access::write}});
    sample(left, right, transpose, s, values, threads);
  });
}

// pointers of the entries of each row of x that are kept.
OARLOCK_API std::int32_t oarlock_sparse_csr_count(const oarlock_tensors* x,
                                                  const oarlock_tensors* pointers,
                                                  const oarlock_sparse_options* o,
                                                  std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const View given = matrix(*x, Access::read);
    std::int32_t* const ends = whole_numbers(*pointers, given.rows + 1);
    check_overlap({{*x, Access::read}, {*pointers, Access::write}});
    const EntryKernels& kernels = OARLOCK_KERNELS(entry_kernels);
    parallel_for(given.rows, threads, [&](std::int64_t row) {
      ends[row + 1] = static_cast<std::int32_t>(
          o->above ? kernels.count_above(given.row(row), given.columns, o->least)
                   : kernels.count(given.row(row), given.columns));
    });
    std::int64_t sum = ends[0] = 0;
    for (std::int64_t row = 0; row < given.rows; ++row) {
      sum += ends[row + 1];
      if (sum > INT32_MAX)
        throw BadArgument(item_name(*x, 0) + " of shape " + shape_text(x->items[0]) +
                          " keeps 2^31 entries or more; multiply it in parts, or as it is");
      ends[row + 1] = static_cast<std::int32_t>(sum);
    }
  });
}

// The indices and values of those entries.
OARLOCK_API std::int32_t oarlock_sparse_csr_fill(
    const oarlock_tensors* x, const oarlock_tensors* pointers, const oarlock_tensors* indices,
    const oarlock_tensors* values, const oarlock_sparse_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const View given = matrix(*x, Access::read);
    const std::int32_t* const begins = whole_numbers(*pointers, given.rows + 1);
    const std::int64_t entries = begins[given.rows];
    std::int32_t* const places = whole_numbers(*indices, entries);
    float* const kept = entry_values(*values, Access::write, {begins, places, given.rows, entries});
    check_overlap({{*x, Access::read}, {*pointers, Access::read}, {*indices, Access::write},
                   {*values, Access::write}});
    const EntryKernels& kernels = OARLOCK_KERNELS(entry_kernels);
    std::atomic<bool> changed{false};
    parallel_for(given.rows, threads, [&](std::int64_t row) {
      const std::int64_t count = begins[row + 1] - begins[row];
      std::int32_t* const to = places + begins[row];
      float* const value = kept + begins[row];
      const bool found =
          o->above ? kernels.compress_above(given.row(row), given.columns, o->least, count, to, value)
                   : kernels.compress(given.row(row), given.columns, count, to, value);
      if (!found) changed = true;
    });
    if (changed)
      throw BadArgument(item_name(*x, 0) + " changed while its entries were counted; leave it alone "
                        "during the call");
  });
}

// The structure of the transpose; entries[i] is which entry of the matrix its entry i is.
OARLOCK_API std::int32_t oarlock_sparse_csr_transpose(
    const oarlock_tensors* pointers, const oarlock_tensors* indices,
    const oarlock_tensors* out_pointers, const oarlock_tensors* out_indices,
    const oarlock_tensors* entries) {
  return guarded([&] {
    const std::int64_t columns = out_pointers->items[0].count - 1;
    const Structure s = structure(*pointers, *indices, columns);
    std::int32_t* const to_pointers = whole_numbers(*out_pointers, columns + 1);
    std::int32_t* const to_indices = whole_numbers(*out_indices, s.entries);
    std::int32_t* const to_entries = whole_numbers(*entries, s.entries);
    check_overlap({{*pointers, Access::read}, {*indices, Access::read},
                   {*out_pointers, Access::write}, {*out_indices, Access::write},
                   {*entries, Access::write}});
    const Transposed t = transposed(s, columns);
    std::copy(t.pointers.begin(), t.pointers.end(), to_pointers);
    std::copy(t.indices.begin(), t.indices.end(), to_indices);
    std::copy(t.entries.begin(), t.entries.end(), to_entries);
  });
}
