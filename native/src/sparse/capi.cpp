// Entry points of products with block-sparse matrices (BSR).

#include <algorithm>
#include <cstring>

#include "core/dispatch.h"
#include "core/error.h"
#include "core/parallel.h"
#include "sparse/arguments.h"
#include "sparse/options.h"
#include "sparse/workspaces.h"

OARLOCK_DECLARE_KERNELS(oarlock::sparse::BlockKernels, block_kernels)

namespace oarlock::sparse {
namespace {

constexpr std::int64_t kCacheFloats = 96 * 1024;  // of packed rows: a part of the second cache
constexpr std::int64_t kMostRows = 240;
constexpr std::int64_t kRowsForCopy = 256;  // as many pay for putting blocks into the order of use

struct Blocks {
  float* values;
  std::int64_t count, rows, columns;  // of one block
};

Blocks blocks(const oarlock_tensors& values, Access access) {
  check_dtype(values, {kFloat32});
  check_memory(values, access);
  const oarlock_tensor& item = values.items[0];
  if (item.ndim != 3 || item.shape[1] < 1 || item.shape[2] < 1)
    throw BadArgument(item_name(values, 0) + " has shape " + shape_text(item) +
                      ", but must be [blocks, block rows, block columns]");
  return {static_cast<float*>(item.data), item.shape[0], item.shape[1], item.shape[2]};
}

void check_blocks(const oarlock_tensors& values, const Blocks& b, const Structure& s) {
  if (b.count != s.entries)
    throw BadArgument(item_name(values, 0) + " has " + std::to_string(b.count) +
                      " blocks, but there are " + std::to_string(s.entries) +
                      " indices; there must be one for each");
}

std::int64_t divided(std::int64_t columns, std::int64_t width, const oarlock_tensors& list) {
  if (columns % width == 0) return columns / width;
  throw BadArgument(item_name(list, 0) + " has " + std::to_string(columns) +
                    " columns, which do not divide into blocks of " + std::to_string(width));
}

// How many rows of `inner` floats a task packs: enough to use each weight many times, few enough for
// the cache. It depends on sizes only, and so do results.
std::int64_t rows_of_task(std::int64_t inner) {
  const std::int64_t fit = kCacheFloats / std::max<std::int64_t>(inner, 1);
  return std::clamp<std::int64_t>(fit / 24 * 24, 48, kMostRows);
}

// Weights as the kernel reads them: those given, or a copy that is transposed or padded.
struct Weights {
  const float* values;
  BlockLayout layout;
  Memory copy;
};

// `order`: which block comes where.
Weights laid_out(const Blocks& b, bool transpose, const std::int32_t* order, bool copied,
                 std::int32_t threads) {
  const std::int64_t depth = transpose ? b.columns : b.rows;
  const std::int64_t width = transpose ? b.rows : b.columns;
  if (!transpose && !copied && width % kStrip == 0)
    return {b.values, {depth, width, depth * width}, nullptr};
  const std::int64_t pitch = strips_of(width) * kStrip, size = depth * pitch;
  Weights w{nullptr, {depth, pitch, size}, allocate(b.count * size)};
  float* const copy = w.copy.get();
  constexpr std::int64_t kBlocksOfTask = 64;
  parallel_for((b.count + kBlocksOfTask - 1) / kBlocksOfTask, threads, [&](std::int64_t task) {
    const std::int64_t end = std::min(b.count, (task + 1) * kBlocksOfTask);
    for (std::int64_t i = task * kBlocksOfTask; i < end; ++i)
      pack_block(b.values + (copied ? order[i] : i) * b.rows * b.columns, b.rows, b.columns,
                 transpose, pitch, copy + i * size);
  });
  w.values = copy;
  return w;
}

struct Columns {  // the matrix by columns of blocks
  const std::int32_t *pointers, *inner, *blocks;
  std::int64_t count;
};

void multiply(const View& x, const Weights& weights, const Columns& columns,
              std::int64_t block_width, const View& out, std::int32_t threads) {
  const BlockKernels& kernels = OARLOCK_KERNELS(block_kernels);
  const std::int64_t depth = weights.layout.depth, inner_blocks = x.columns / depth;
  const std::int64_t packed = inner_blocks * strips_of(depth) * kStrip;
  const std::int64_t rows = std::min(std::max<std::int64_t>(x.rows, 1), rows_of_task(packed));
  const std::int64_t row_tasks = (x.rows + rows - 1) / rows;
  // Few rows: tasks share them, and each takes a part of the columns.
  const std::int64_t wanted = threads > 1 ? 4 * std::int64_t{threads} : 1;
  const std::int64_t groups = std::clamp<std::int64_t>(
      row_tasks > 0 ? (wanted + row_tasks - 1) / row_tasks : 1, 1, std::max<std::int64_t>(columns.count, 1));
  const std::int64_t tasks = row_tasks * groups;
  if (tasks == 0 || columns.count == 0) return;
  Workspaces workspaces(std::min<std::int64_t>(tasks, threads), packed * rows);
  parallel_for(tasks, threads, [&](std::int64_t task) {
    const std::int64_t begin = task / groups * rows, end = std::min(x.rows, begin + rows);
    const std::int64_t group = task % groups, strip_size = (end - begin) * kStrip;
    const std::int64_t first = group * columns.count / groups;
    const std::int64_t last = (group + 1) * columns.count / groups;
    const Workspaces::Lease lease(workspaces);
    pack_strips(x, begin, end, 0, inner_blocks, depth, lease.data());
    for (std::int64_t column = first; column < last; ++column) {
      const std::int32_t from = columns.pointers[column];
      const BlockColumn blocks{columns.inner + from, columns.blocks + from,
                               columns.pointers[column + 1] - from};
      for (std::int64_t c = 0; c < block_width;) {
        const bool wide = kernels.multiply_wide != nullptr && block_width - c >= 2 * kStrip;
        const std::int64_t width = wide ? 2 * kStrip : std::min(kStrip, block_width - c);
        (wide ? kernels.multiply_wide : kernels.multiply)(
            lease.data(), strip_size, blocks, weights.values + c, weights.layout, end - begin,
            out.row(begin) + column * block_width + c, out.columns, width);
        c += width;
      }
    }
  });
}

void sample(const View& a, const View& b, const Structure& s, const Blocks& out,
            std::int32_t threads) {
  const BlockKernels& kernels = OARLOCK_KERNELS(block_kernels);
  const std::int64_t rows = a.rows, out_size = out.rows * out.columns;
  if (rows == 0) {
    std::fill_n(out.values, out.count * out_size, 0.0f);
    return;
  }
  const std::int64_t a_blocks = a.columns / out.rows, b_blocks = b.columns / out.columns;
  const std::int64_t a_strips = strips_of(out.rows), b_strips = strips_of(out.columns);
  const std::int64_t a_packed = a_blocks * a_strips * kStrip;
  const std::int64_t b_packed = b_blocks * b_strips * kStrip;
  const std::int64_t fit = 3 * kCacheFloats / std::max<std::int64_t>(a_packed + b_packed, 1);
  const std::int64_t step = std::min(rows, std::clamp<std::int64_t>(fit / 16 * 16, 96, 512));
  const Memory packed = allocate((a_packed + b_packed) * step);
  float* const a_memory = packed.get();
  float* const b_memory = a_memory + a_packed * step;
  // Packing by some blocks of columns at a time, products by some rows of blocks at a time.
  const std::int64_t pieces = threads > 1 ? 4 * std::int64_t{threads} : 1;
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t end = std::min(rows, begin + step), length = end - begin;
    const std::int64_t strip_size = length * kStrip;
    const auto pack = [&](const View& x, std::int64_t blocks, std::int64_t width, float* memory,
                          std::int64_t piece) {
      const std::int64_t first = piece * blocks / pieces, last = (piece + 1) * blocks / pieces;
      pack_strips(x, begin, end, first, last, width,
                  memory + first * strips_of(width) * strip_size);
    };
    parallel_for(2 * pieces, threads, [&](std::int64_t task) {
      if (task < pieces)
        pack(a, a_blocks, out.rows, a_memory, task);
      else
        pack(b, b_blocks, out.columns, b_memory, task - pieces);
    });
    parallel_for(pieces, threads, [&](std::int64_t piece) {
      // Rows of blocks with about as many blocks for each piece.
      const auto row_at = [&](std::int64_t share) {
        const auto entry = static_cast<std::int32_t>(share * s.entries / pieces);
        return std::lower_bound(s.pointers, s.pointers + s.rows, entry) - s.pointers;
      };
      const std::int64_t last = piece + 1 == pieces ? s.rows : row_at(piece + 1);
      for (std::int64_t row = row_at(piece); row < last; ++row)
        for (std::int32_t i = s.pointers[row]; i < s.pointers[row + 1]; ++i)
          for (std::int64_t p = 0; p < a_strips; ++p)
            for (std::int64_t q = 0; q < b_strips; ++q)
              kernels.sample(a_memory + (row * a_strips + p) * strip_size,
                             b_memory + (s.indices[i] * b_strips + q) * strip_size, length,
                             begin == 0, std::min(kStrip, out.rows - p * kStrip),
                             out.values + i * out_size + p * kStrip * out.columns + q * kStrip,
                             out.columns, std::min(kStrip, out.columns - q * kStrip));
    });
  }
}

}  // namespace
}  // namespace oarlock::sparse

using namespace oarlock;
using namespace oarlock::sparse;

// out = x W, or x W^T.
OARLOCK_API std::int32_t oarlock_sparse_bsr_matmul(
    const oarlock_tensors* x, const oarlock_tensors* pointers, const oarlock_tensors* indices,
    const oarlock_tensors* values, const oarlock_tensors* out, const oarlock_sparse_options* o,
    std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const View given = matrix(*x, Access::read);
    const View result = matrix(*out, Access::write);
    const Blocks b = blocks(*values, Access::read);
    const bool transpose = o->transpose != 0;
    const std::int64_t block_columns =
        transpose ? divided(given.columns, b.columns, *x) : divided(result.columns, b.columns, *out);
    const Structure s = structure(*pointers, *indices, block_columns);
    check_blocks(*values, b, s);
    const std::int64_t rows = s.rows * b.rows, columns = block_columns * b.columns;
    matrix(*x, Access::read, given.rows, transpose ? columns : rows, "the sparse matrix");
    matrix(*out, Access::write, given.rows, transpose ? rows : columns,
           "the product of x and the sparse matrix");
    check_overlap({{*x, Access::read}, {*values, Access::read}, {*out, Access::write}});
    std::vector<std::int32_t> own(s.entries);
    for (std::int64_t i = 0; i < s.entries; ++i) own[i] = static_cast<std::int32_t>(i);
    if (transpose) {
      const Weights weights = laid_out(b, true, nullptr, false, threads);
      multiply(given, weights, {s.pointers, s.indices, own.data(), s.rows}, b.rows, result,
               threads);
    } else {
      const Transposed t = transposed(s, block_columns);
      const bool copied = given.rows >= kRowsForCopy;
      const Weights weights = laid_out(b, false, t.entries.data(), copied, threads);
      const std::int32_t* const order = copied ? own.data() : t.entries.data();
      multiply(given, weights, {t.pointers.data(), t.indices.data(), order, block_columns},
               b.columns, result, threads);
    }
  });
}

// out = the blocks of a^T b that the structure keeps.
OARLOCK_API std::int32_t oarlock_sparse_bsr_sample(
    const oarlock_tensors* a, const oarlock_tensors* b, const oarlock_tensors* pointers,
    const oarlock_tensors* indices, const oarlock_tensors* out, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const View left = matrix(*a, Access::read);
    const View right = matrix(*b, Access::read, left.rows, matrix(*b, Access::read).columns, "a");
    const Blocks kept = blocks(*out, Access::write);
    const Structure s = structure(*pointers, *indices, divided(right.columns, kept.columns, *b));
    check_blocks(*out, kept, s);
    matrix(*a, Access::read, left.rows, s.rows * kept.rows, "the sparse matrix");
    check_overlap({{*a, Access::read}, {*b, Access::read}, {*out, Access::write}});
    sample(left, right, s, kept, threads);
  });
}
