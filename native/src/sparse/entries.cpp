#include "sparse/entries.h"

#include <algorithm>

#include "core/dispatch.h"
#include "core/parallel.h"
#include "sparse/runs.h"

OARLOCK_DECLARE_KERNELS(oarlock::sparse::EntryKernels, entry_kernels)

namespace oarlock::sparse {
namespace {

constexpr std::int64_t kTaskRows = 1024;  // rows of a task, whose sums stay in the second cache
constexpr std::int64_t kTaskTiles = 8;    // tiles of results of a task

}  // namespace

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

Memory gathered(const float* values, const std::vector<std::int32_t>& entries) {
  Memory out = allocate(static_cast<std::int64_t>(entries.size()));
  for (std::size_t i = 0; i < entries.size(); ++i) out[i] = values[entries[i]];
  return out;
}

}  // namespace oarlock::sparse
