// Entry points of the search for neighbours.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "atoms/arguments.h"
#include "atoms/neighbours.h"
#include "core/error.h"
#include "core/parallel.h"

using namespace oarlock;
using namespace oarlock::atoms;

namespace {

struct Found {
  std::vector<std::vector<Pair>> pairs;
  std::int64_t atoms = 0, count = 0;
};

// Calls visit(pair, k) for the k-th pair.
template <typename Visit>
void each(const Found& found, const Visit& visit) {
  std::int64_t k = 0;
  for (const auto& some : found.pairs)
    for (const Pair& pair : some) visit(pair, k++);
}

}  // namespace

// Finds pairs and keeps them in `*out` until they are destroyed; `*pairs` is how many there are.
OARLOCK_API std::int32_t oarlock_atoms_pairs_find(const oarlock_tensors* positions,
                                                  const oarlock_tensors* cell,
                                                  const oarlock_tensors* periodic, double cutoff,
                                                  std::int32_t threads, void** out,
                                                  std::int64_t* pairs) {
  return guarded([&] {
    check_threads(threads);
    const oarlock_tensor& points = tensor(*positions, kFloat64, {-1, 3}, Access::read);
    const std::int64_t count = points.shape[0];
    if (count >= std::numeric_limits<std::int32_t>::max())
      throw BadArgument("positions[0] has " + text(count) + " atoms, but must have fewer than 2^31");
    const double* const at = data<double>(points);
    for (std::int64_t i = 0; i < 3 * count; ++i)
      if (!std::isfinite(at[i]))
        throw BadArgument("positions[0] is not finite at atom " + text(i / 3));
    Box box;
    std::memcpy(box.cell, tensor(*cell, kFloat64, {3, 3}, Access::read).data, sizeof box.cell);
    const std::int32_t* const repeats = data<std::int32_t>(tensor(*periodic, kInt32, {3}, Access::read));
    for (int axis = 0; axis < 3; ++axis) box.periodic[axis] = repeats[axis] != 0;
    if (!(cutoff > 0) || !std::isfinite(cutoff))
      throw BadArgument("cutoff must be a positive length, not " + std::to_string(cutoff));
    auto found = std::make_unique<Found>();
    found->atoms = count;
    found->pairs = find_pairs(at, count, box, cutoff, threads);
    for (const auto& some : found->pairs) found->count += static_cast<std::int64_t>(some.size());
    if (found->count >= std::numeric_limits<std::int32_t>::max() / 2)
      throw BadArgument("cutoff makes " + text(found->count) +
                        " pairs, but there must be fewer than 2^30: give a smaller one");
    *pairs = found->count;
    *out = found.release();
  });
}

OARLOCK_API void oarlock_atoms_pairs_destroy(void* pairs) { delete static_cast<Found*>(pairs); }

// Each pair from its first atom: offsets [atoms + 1], neighbours [pairs], shifts [pairs, 3].
OARLOCK_API std::int32_t oarlock_atoms_pairs_half(const void* pairs, const oarlock_tensors* offsets,
                                                  const oarlock_tensors* neighbours,
                                                  const oarlock_tensors* shifts) {
  return guarded([&] {
    const Found& found = *static_cast<const Found*>(pairs);
    auto* const ends = data<std::int64_t>(tensor(*offsets, kInt64, {found.atoms + 1}, Access::write));
    auto* const to = data<std::int32_t>(tensor(*neighbours, kInt32, {found.count}, Access::write));
    auto* const by = data<std::int32_t>(tensor(*shifts, kInt32, {found.count, 3}, Access::write));
    std::fill_n(ends, found.atoms + 1, 0);
    each(found, [&](const Pair& pair, std::int64_t) { ++ends[pair.first + 1]; });
    for (std::int64_t i = 0; i < found.atoms; ++i) ends[i + 1] += ends[i];
    std::vector<std::int64_t> next(ends, ends + found.atoms);
    each(found, [&](const Pair& pair, std::int64_t) {
      const std::int64_t e = next[pair.first]++;
      to[e] = pair.second;
      std::copy_n(pair.shift, 3, by + 3 * e);
    });
  });
}

// Each pair from both atoms: as above with twice the edges, and which edge leads back [2 pairs].
OARLOCK_API std::int32_t oarlock_atoms_pairs_full(const void* pairs, const oarlock_tensors* offsets,
                                                  const oarlock_tensors* neighbours,
                                                  const oarlock_tensors* shifts,
                                                  const oarlock_tensors* reverse) {
  return guarded([&] {
    const Found& found = *static_cast<const Found*>(pairs);
    const std::int64_t edges = 2 * found.count;
    auto* const ends = data<std::int64_t>(tensor(*offsets, kInt64, {found.atoms + 1}, Access::write));
    auto* const to = data<std::int32_t>(tensor(*neighbours, kInt32, {edges}, Access::write));
    auto* const by = data<std::int32_t>(tensor(*shifts, kInt32, {edges, 3}, Access::write));
    auto* const back = data<std::int32_t>(tensor(*reverse, kInt32, {edges}, Access::write));
    std::fill_n(ends, found.atoms + 1, 0);
    each(found, [&](const Pair& pair, std::int64_t) {
      ++ends[pair.first + 1];
      ++ends[pair.second + 1];
    });
    for (std::int64_t i = 0; i < found.atoms; ++i) ends[i + 1] += ends[i];
    std::vector<std::int64_t> next(ends, ends + found.atoms);
    each(found, [&](const Pair& pair, std::int64_t) {
      const std::int64_t there = next[pair.first]++, home = next[pair.second]++;
      to[there] = pair.second;
      to[home] = pair.first;
      back[there] = static_cast<std::int32_t>(home);
      back[home] = static_cast<std::int32_t>(there);
      for (int k = 0; k < 3; ++k) {
        by[3 * there + k] = pair.shift[k];
        by[3 * home + k] = -pair.shift[k];
      }
    });
  });
}

// The vector of each edge, positions[neighbour] − positions[row] + shift, and its square; shifts [E, 3]
// may be an empty list.
OARLOCK_API std::int32_t oarlock_atoms_edge_vectors(
    const oarlock_tensors* positions, const oarlock_tensors* offsets,
    const oarlock_tensors* neighbours, const oarlock_tensors* shifts,
    const oarlock_tensors* vectors, const oarlock_tensors* squares, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const oarlock_tensor& points = tensor(*positions, kFloat64, {-1, 3}, Access::read);
    const oarlock_tensor& ends = tensor(*offsets, kInt64, {-1}, Access::read);
    const oarlock_tensor& to = tensor(*neighbours, kInt32, {-1}, Access::read);
    const std::int64_t count = to.count, atoms = points.shape[0], rows = ends.count - 1;
    const auto* const by = shifts->count == 0
                               ? nullptr
                               : data<const double>(tensor(*shifts, kFloat64, {count, 3}, Access::read));
    auto* const out = data<double>(tensor(*vectors, kFloat64, {count, 3}, Access::write));
    auto* const lengths = data<double>(tensor(*squares, kFloat64, {count}, Access::write));
    check_overlap({{*positions, Access::read}, {*shifts, Access::read}, {*vectors, Access::write},
                   {*squares, Access::write}});
    const auto* const end = data<const std::int64_t>(ends);
    const auto* const other = data<const std::int32_t>(to);
    const auto* const at = data<const double>(points);
    if (rows < 0 || rows > atoms || end[0] != 0 || end[rows] != count)
      throw BadArgument("offsets[0] must go from 0 to the " + text(count) + " of neighbours[0], for " +
                        text(atoms) + " atoms at most");
    for (std::int64_t i = 0; i < rows; ++i)
      if (end[i] > end[i + 1])
        throw BadArgument("offsets[0] falls from " + text(end[i]) + " to " + text(end[i + 1]));
    for (std::int64_t e = 0; e < count; ++e)
      if (other[e] < 0 || other[e] >= atoms)
        throw BadArgument("neighbours[0] holds " + text(other[e]) + " at " + text(e) +
                          ", but must be in [0, " + text(atoms) + ")");
    constexpr std::int64_t kRows = 256;
    parallel_for((rows + kRows - 1) / kRows, threads, [&](std::int64_t task) {
      for (std::int64_t i = task * kRows; i < std::min(rows, (task + 1) * kRows); ++i)
        for (std::int64_t e = end[i]; e < end[i + 1]; ++e) {
          double square = 0;
          for (int k = 0; k < 3; ++k) {
            double x = at[3 * other[e] + k] - at[3 * i + k];
            if (by != nullptr) x += by[3 * e + k];
            out[3 * e + k] = x;
            square += x * x;
          }
          lengths[e] = square;
        }
    });
  });
}
