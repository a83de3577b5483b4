// Entry points of products with N:M-sparse matrices, which are spread out to single entries.

#include "core/error.h"
#include "sparse/entries.h"
#include "sparse/options.h"

namespace oarlock::sparse {
namespace {

// Which rows an N:M matrix keeps: codes [kept rows, columns] are places within groups of `group`.
struct Codes {
  const std::uint8_t* data;
  std::int64_t kept, columns, rows, of_group, group;
};

constexpr std::int32_t kUint8 = 1 << 8 | 8;

Codes codes_of(const oarlock_tensors& list, std::int64_t rows, std::int32_t group) {
  check_dtype(list, {kUint8});
  check_memory(list, Access::read);
  const oarlock_tensor& item = list.items[0];
  const auto fault = [&](const std::string& what) {
    return BadArgument(item_name(list, 0) + " of shape " + shape_text(item) + what);
  };
  if (item.ndim != 2) throw fault(" must be [kept rows, columns]");
  if (rows % group != 0)
    throw BadArgument("the sparse matrix has " + std::to_string(rows) +
                      " rows, which do not divide into groups of " + std::to_string(group));
  const std::int64_t groups = rows / group, kept = item.shape[0];
  if (groups == 0 ? kept != 0 : kept % groups != 0 || kept / groups > group)
    throw fault(" does not fit " + std::to_string(groups) + " groups of " + std::to_string(group) +
                " rows; each group keeps the same number of rows, at most all");
  const Codes codes{static_cast<const std::uint8_t*>(item.data), kept, item.shape[1], rows,
                    groups == 0 ? 0 : kept / groups, group};
  for (std::int64_t row = 0; row < kept; ++row)
    for (std::int64_t column = 0; column < codes.columns; ++column) {
      const std::int64_t i = row * codes.columns + column;
      const bool rises = row % codes.of_group == 0 || codes.data[i] > codes.data[i - codes.columns];
      if (codes.data[i] < group && rises) continue;
      throw BadArgument(item_name(list, 0) + " has " + std::to_string(codes.data[i]) + " at [" +
                        std::to_string(row) + ", " + std::to_string(column) +
                        "]; codes must be below " + std::to_string(group) +
                        " and rise within a group");
    }
  return codes;
}

std::int64_t row_of(const Codes& codes, std::int64_t kept_row, std::int64_t column) {
  return kept_row / codes.of_group * codes.group + codes.data[kept_row * codes.columns + column];
}

struct Expanded {
  std::vector<std::int32_t> pointers, indices, places;  // places: where the value of an entry is
  Structure structure() const {
    return {pointers.data(), indices.data(), static_cast<std::int64_t>(pointers.size()) - 1,
            static_cast<std::int64_t>(indices.size())};
  }
};

// The N:M matrix as rows of its transpose: each column keeps as many entries.
Expanded by_columns(const Codes& codes) {
  Expanded e;
  const std::int64_t entries = codes.kept * codes.columns;
  e.pointers.resize(codes.columns + 1);
  e.indices.resize(entries);
  e.places.resize(entries);
  for (std::int64_t column = 0; column <= codes.columns; ++column)
    e.pointers[column] = static_cast<std::int32_t>(column * codes.kept);
  for (std::int64_t row = 0; row < codes.kept; ++row)
    for (std::int64_t column = 0; column < codes.columns; ++column) {
      e.indices[column * codes.kept + row] = static_cast<std::int32_t>(row_of(codes, row, column));
      e.places[column * codes.kept + row] = static_cast<std::int32_t>(row * codes.columns + column);
    }
  return e;
}

// ... and as rows of itself.
Expanded by_rows(const Codes& codes) {
  Expanded e;
  e.pointers.assign(codes.rows + 1, 0);
  const std::int64_t entries = codes.kept * codes.columns;
  e.indices.resize(entries);
  e.places.resize(entries);
  for (std::int64_t row = 0; row < codes.kept; ++row)
    for (std::int64_t column = 0; column < codes.columns; ++column)
      ++e.pointers[row_of(codes, row, column) + 1];
  for (std::int64_t row = 0; row < codes.rows; ++row) e.pointers[row + 1] += e.pointers[row];
  std::vector<std::int32_t> next(e.pointers.begin(), e.pointers.end() - 1);
  const std::int64_t groups = codes.of_group == 0 ? 0 : codes.kept / codes.of_group;
  for (std::int64_t group = 0; group < groups; ++group)
    for (std::int64_t column = 0; column < codes.columns; ++column)
      for (std::int64_t i = 0; i < codes.of_group; ++i) {
        const std::int64_t row = group * codes.of_group + i;
        const std::int32_t place = next[row_of(codes, row, column)]++;
        e.indices[place] = static_cast<std::int32_t>(column);
        e.places[place] = static_cast<std::int32_t>(row * codes.columns + column);
      }
  return e;
}

View nm_values(const oarlock_tensors& values, Access access, const Codes& codes) {
  return matrix(values, access, codes.kept, codes.columns, "one value for each of codes");
}

std::int32_t group_of(const oarlock_sparse_options& o) {
  if (o.group < 1 || o.group > 256)
    throw BadArgument("group must be between 1 and 256, not " + std::to_string(o.group));
  return o.group;
}

}  // namespace
}  // namespace oarlock::sparse

using namespace oarlock;
using namespace oarlock::sparse;

// out = x W, or x W^T, where W keeps some rows of each group in every column.
OARLOCK_API std::int32_t oarlock_sparse_nm_matmul(
    const oarlock_tensors* x, const oarlock_tensors* codes, const oarlock_tensors* values,
    const oarlock_tensors* out, const oarlock_sparse_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const bool transpose = o->transpose != 0;
    const View given = matrix(*x, Access::read), result = matrix(*out, Access::write);
    const Codes c = codes_of(*codes, transpose ? result.columns : given.columns, group_of(*o));
    const View kept = nm_values(*values, Access::read, c);
    matrix(*x, Access::read, given.rows, transpose ? c.columns : c.rows, "the sparse matrix");
    matrix(*out, Access::write, given.rows, transpose ? c.rows : c.columns,
           "the product of x and the sparse matrix");
    check_overlap({{*x, Access::read}, {*values, Access::read}, {*out, Access::write}});
    const Expanded e = transpose ? by_rows(c) : by_columns(c);
    const Memory moved = gathered(kept.data, e.places);
    multiply({e.structure(), moved.get()}, given, true, result, true, threads);
  });
}

// out = the entries of a^T b that an N:M matrix of these codes keeps.
OARLOCK_API std::int32_t oarlock_sparse_nm_sample(
    const oarlock_tensors* a, const oarlock_tensors* b, const oarlock_tensors* codes,
    const oarlock_tensors* out, const oarlock_sparse_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const View left = matrix(*a, Access::read);
    const Codes c = codes_of(*codes, left.columns, group_of(*o));
    const View right = matrix(*b, Access::read, left.rows, c.columns, "a and codes");
    const View kept = nm_values(*out, Access::write, c);
    check_overlap({{*a, Access::read}, {*b, Access::read}, {*out, Access::write}});
    const Expanded e = by_columns(c);
    const std::int64_t entries = c.kept * c.columns;
    const Memory sums = allocate(entries);
    sample(right, left, true, e.structure(), sums.get(), threads);
    for (std::int64_t i = 0; i < entries; ++i) kept.data[e.places[i]] = sums[i];
  });
}
