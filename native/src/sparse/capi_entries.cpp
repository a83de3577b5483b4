// Entry points of products with single entries: CSR, N:M, and activations of which most are zero.

#include <algorithm>
#include <cstring>

#include "core/dispatch.h"
#include "core/error.h"
#include "core/parallel.h"
#include "sparse/arguments.h"
#include "sparse/options.h"
#include "sparse/workspaces.h"

OARLOCK_DECLARE_KERNELS(oarlock::sparse::EntryKernels, entry_kernels)

namespace oarlock::sparse {
namespace {

constexpr std::uint32_t kDepth = 64;     // rows of a tile; it fills two thirds of a first cache
constexpr std::int64_t kTaskRows = 1024;  // rows of a task, whose sums stay in the second cache
constexpr std::int64_t kTaskTiles = 8;    // tiles of results of a task

// A CSR matrix whose values may be held elsewhere.
struct Entries {
  Structure at;
  const float* values;
};

std::int64_t pieces_of(std::int64_t columns) { return (columns + kDepth - 1) / kDepth; }

// The entries of rows [begin, end) in the order in which kernels read them: by pieces of kDepth
// columns, and in a piece by runs, the short ones first.
class Runs {
 public:
  // Floats of the memory that it needs.
  static std::int64_t size(std::int64_t rows, std::int64_t entries, std::int64_t columns) {
    static_assert(sizeof(Run) == 2 * sizeof(float));
    return pieces_of(columns) * (2 * rows + 2 + pitch_of(rows)) + 1 + pitch_of(rows) + 2 * entries;
  }

  // With `values` those of the entries are kept, else their places.
  Runs(const Structure& s, const float* values, std::int64_t begin, std::int64_t end,
       std::int64_t columns, float* memory)
      : rows_(end - begin), pieces_(pieces_of(columns)), runs_(reinterpret_cast<Run*>(memory)) {
    counts_ = reinterpret_cast<std::int32_t*>(runs_ + pieces_ * rows_);
    first_ = counts_ + pieces_;
    // Where the entries of each piece end in each row, after a line of where rows begin. A store
    // for each entry and no branch: lengths of runs cannot be foreseen.
    const std::int64_t pitch = pitch_of(rows_);
    std::int32_t* const ends = first_ + pieces_ + 1;
    lines_ = ends + (pieces_ + 1) * pitch;
    places_ = lines_ + (s.pointers[end] - s.pointers[begin]);
    std::fill_n(ends, (pieces_ + 1) * pitch, 0);
    for (std::int64_t row = 0; row < rows_; ++row) {
      const std::int32_t last = s.pointers[begin + row + 1];
      std::int32_t i = ends[row] = s.pointers[begin + row];
      for (; i < last; ++i) {
        const auto piece = static_cast<std::uint32_t>(s.indices[i]) / kDepth;
        ends[(piece + 1) * pitch + row] = i + 1;
      }
    }
    first_[0] = 0;
    for (std::int64_t piece = 0; piece < pieces_; ++piece)
      sort(s, values, ends + piece * pitch, ends + (piece + 1) * pitch, piece);
  }

  std::int64_t count(std::int64_t piece) const { return counts_[piece]; }
  const Run* runs(std::int64_t piece) const { return runs_ + piece * rows_; }
  std::int64_t first(std::int64_t piece) const { return first_[piece]; }  // of its entries
  std::int64_t entries() const { return first_[pieces_]; }
  const std::int32_t* lines() const { return lines_; }
  const std::int32_t* places() const { return places_; }  // of entries in the structure
  const float* values() const { return reinterpret_cast<const float*>(places_); }

 private:
  // Lines a power of two apart would meet in the same set of the cache.
  static std::int64_t pitch_of(std::int64_t rows) { return rows + 16; }

  void sort(const Structure& s, const float* values, const std::int32_t* from, std::int32_t* to,
            std::int64_t piece) {
    // Places of runs and of entries, by the length of the run; empty ones are left out.
    std::int32_t runs[kDepth + 2] = {}, entries[kDepth + 2] = {};
    for (std::int64_t row = 0; row < rows_; ++row) {
      to[row] = std::max(to[row], from[row]);
      ++runs[to[row] - from[row] + 1];
    }
    const std::int32_t empty = runs[1];
    entries[1] = first_[piece];
    for (std::int32_t length = 1; length <= std::int32_t{kDepth}; ++length) {
      entries[length + 1] = entries[length] + length * runs[length + 1];
      runs[length + 1] += runs[length];
    }
    for (std::int64_t row = 0; row < rows_; ++row) {
      const std::int32_t length = to[row] - from[row];
      if (length == 0) continue;
      runs_[piece * rows_ + runs[length]++ - empty] = {static_cast<std::int32_t>(row), length};
      const std::int32_t next = entries[length], begin = from[row];
      entries[length] += length;
      for (std::int32_t i = 0; i < length; ++i) {
        const auto index = static_cast<std::uint32_t>(s.indices[begin + i]);
        lines_[next + i] = static_cast<std::int32_t>(index % kDepth * kTile);
        places_[next + i] = begin + i;
        if (values != nullptr) std::memcpy(places_ + next + i, values + begin + i, sizeof(float));
      }
    }
    counts_[piece] = static_cast<std::int32_t>(rows_ - empty);
    first_[piece + 1] = entries[kDepth + 1];
  }

  std::int64_t rows_, pieces_;
  Run* runs_;
  std::int32_t *counts_, *first_, *lines_, *places_;
};

// The most entries that `rows` neighbouring rows of a task have.
std::int64_t most_entries(const Structure& s, std::int64_t rows) {
  std::int64_t most = 0;
  for (std::int64_t begin = 0; begin < s.rows; begin += rows) {
    const std::int64_t end = std::min(s.rows, begin + rows);
    most = std::max<std::int64_t>(most, s.pointers[end] - s.pointers[begin]);
  }
  return most;
}

// out = S dense; `dense` and `out` are given as their transposes where the flags say so.
void multiply(const Entries& s, const View& dense, bool transpose_dense, const View& out,
              bool transpose_out, std::int32_t threads) {
  const EntryKernels& kernels = OARLOCK_KERNELS(entry_kernels);
  const std::int64_t depth = transpose_dense ? dense.columns : dense.rows;
  const std::int64_t width = transpose_dense ? dense.rows : dense.columns;
  const std::int64_t groups = (s.at.rows + kTaskRows - 1) / kTaskRows;
  const std::int64_t tiles = (width + kTile - 1) / kTile;
  const std::int64_t parts = (tiles + kTaskTiles - 1) / kTaskTiles, tasks = groups * parts;
  if (tasks == 0) return;
  const std::int64_t rows = std::min(s.at.rows, kTaskRows);
  const std::int64_t tile_size = kDepth * kTile, sums_size = rows * kTile;
  const std::int64_t entries = most_entries(s.at, kTaskRows);
  Workspaces workspaces(std::min<std::int64_t>(tasks, threads),
                        tile_size + sums_size + Runs::size(rows, entries, depth));
  parallel_for(tasks, threads, [&](std::int64_t task) {
    const std::int64_t begin = task % groups * kTaskRows;
    const std::int64_t end = std::min(s.at.rows, begin + kTaskRows);
    const std::int64_t first = task / groups * kTaskTiles;
    const std::int64_t last = std::min(tiles, first + kTaskTiles);
    const Workspaces::Lease lease(workspaces);
    float* const tile = lease.data();
    float* const sums = tile + tile_size;
    const Runs runs(s.at, s.values, begin, end, depth, sums + sums_size);
    for (std::int64_t column = first * kTile; column < last * kTile; column += kTile) {
      std::fill_n(sums, (end - begin) * kTile, 0.0f);
      for (std::int64_t piece = 0; piece * kDepth < depth; ++piece) {
        if (runs.count(piece) == 0) continue;
        const std::int64_t from = piece * kDepth, to = std::min(depth, from + kDepth);
        pack_tile(dense, transpose_dense, from, to, column, tile);
        const std::int64_t at = runs.first(piece);
        kernels.multiply(runs.runs(piece), runs.count(piece), runs.lines() + at,
                         runs.values() + at, tile, sums);
      }
      unpack_tile(sums, out, transpose_out, begin, end, column);
    }
  });
}

// out[entry (r, c)] = a[r] . b[c], or with `transpose` of columns r and c.
void sample(const View& a, const View& b, bool transpose, const Structure& s, float* out,
            std::int32_t threads) {
  const EntryKernels& kernels = OARLOCK_KERNELS(entry_kernels);
  const std::int64_t length = transpose ? a.rows : a.columns;
  const std::int64_t columns = transpose ? b.columns : b.rows;
  std::fill_n(out, length == 0 ? s.entries : 0, 0.0f);
  const std::int64_t rows =
      std::clamp<std::int64_t>(s.rows / (4 * std::int64_t{threads}), 32, kTaskRows);
  const std::int64_t tasks = length == 0 ? 0 : (s.rows + rows - 1) / rows;
  if (tasks == 0) return;
  const std::int64_t tile_size = kDepth * kTile, entries = most_entries(s, rows);
  Workspaces workspaces(std::min<std::int64_t>(tasks, threads),
                        tile_size + rows * kTile + entries + Runs::size(rows, entries, columns));
  parallel_for(tasks, threads, [&](std::int64_t task) {
    const std::int64_t begin = task * rows, end = std::min(s.rows, begin + rows);
    const Workspaces::Lease lease(workspaces);
    float* const tile = lease.data();
    float* const lines = tile + tile_size;
    float* const sums = lines + rows * kTile;
    const Runs runs(s, nullptr, begin, end, columns, sums + entries);
    std::fill_n(sums, runs.entries(), 0.0f);
    // Each task goes over all of the length, so that each entry has one sum.
    for (std::int64_t at = 0; at < length; at += kTile) {
      pack_tile(a, transpose, begin, end, at, lines);
      for (std::int64_t piece = 0; piece * kDepth < columns; ++piece) {
        if (runs.count(piece) == 0) continue;
        const std::int64_t from = piece * kDepth, to = std::min(columns, from + kDepth);
        pack_tile(b, transpose, from, to, at, tile);
        const std::int64_t entry = runs.first(piece);
        kernels.sample(runs.runs(piece), runs.count(piece), runs.lines() + entry, tile, lines,
                       sums + entry);
      }
    }
    for (std::int64_t i = 0; i < runs.entries(); ++i) out[runs.places()[i]] = sums[i];
  });
}

// Values in the order of the transpose.
Memory gathered(const float* values, const std::vector<std::int32_t>& entries) {
  Memory out = allocate(static_cast<std::int64_t>(entries.size()));
  for (std::size_t i = 0; i < entries.size(); ++i) out[i] = values[entries[i]];
  return out;
}

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
