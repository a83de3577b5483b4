// The cells are finer than the cut-off, and lie so that those of a line along the last axis follow each
// other: their atoms are one stretch of memory, which a kernel runs through.
#include "atoms/neighbours.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "atoms/arguments.h"
#include "atoms/neighbours_kernels.h"
#include "core/buffer.h"
#include "core/dispatch.h"
#include "core/error.h"
#include "core/parallel.h"

OARLOCK_DECLARE_KERNELS(oarlock::atoms::NeighbourKernels, neighbour_kernels)

namespace oarlock::atoms {
namespace {

using Vector = double[3];

void cross(const Vector& a, const Vector& b, Vector& out) {
  out[0] = a[1] * b[2] - a[2] * b[1];
  out[1] = a[2] * b[0] - a[0] * b[2];
  out[2] = a[0] * b[1] - a[1] * b[0];
}

double dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// Lattice vectors of the directions that repeat; for the others unit vectors at right angles to them.
void complete(const Box& box, double (&out)[3][3]) {
  std::memcpy(out, box.cell, sizeof out);
  int known = box.periodic[0] + box.periodic[1] + box.periodic[2];
  if (known == 0) {
    const double unit[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
    std::memcpy(out, unit, sizeof out);
    return;
  }
  bool set[3] = {box.periodic[0], box.periodic[1], box.periodic[2]};
  for (int axis = 0; axis < 3; ++axis) {
    if (set[axis]) continue;
    const int next = (axis + 1) % 3, other = (axis + 2) % 3;
    if (set[next] && set[other]) {
      cross(out[next], out[other], out[axis]);
    } else {
      const int along = set[next] ? next : other;
      int least = 0;  // of the unit vectors, the one that the known direction is least along
      for (int k = 1; k < 3; ++k)
        if (std::abs(out[along][k]) < std::abs(out[along][least])) least = k;
      Vector unit = {0, 0, 0};
      unit[least] = 1;
      cross(out[along], unit, out[axis]);
    }
    const double length = std::sqrt(dot(out[axis], out[axis]));
    for (double& component : out[axis]) component /= length;
    set[axis] = true;
  }
}

struct Axis {
  std::int64_t cells, reach;  // cells along it, and how many of them the cut-off reaches over
  double start, scale;        // cell of a fractional coordinate s: (s − start) · scale
  bool periodic;
};

class Grid {
 public:
  Grid(const double* positions, std::int64_t count, const Box& box, double cutoff);

  std::int64_t cells() const { return axes_[0].cells * axes_[1].cells * axes_[2].cells; }
  std::int64_t lines() const { return axes_[0].cells * axes_[1].cells; }
  void search(const NeighbourKernels& kernels, std::int64_t line, double square,
              std::vector<Pair>& out) const;

 private:
  void place(const double* positions);
  void choose(double cutoff, const double (&inverse)[3][3]);
  void add(std::int64_t atom, const std::int32_t* found, std::int64_t count,
           const std::int32_t (&image)[3], std::vector<Pair>& out) const;

  std::int64_t count_;
  double cell_[3][3];
  Axis axes_[3];
  std::vector<double> fractions_[3];       // of the atoms as given, wrapped
  std::vector<std::int32_t> wraps_;        // [count, 3], sorted by cell like all below
  std::vector<double> x_, y_, z_;
  std::vector<std::int32_t> atoms_;
  std::vector<std::int64_t> starts_;       // of cells
};

Grid::Grid(const double* positions, std::int64_t count, const Box& box, double cutoff)
    : count_(count) {
  complete(box, cell_);
  double inverse[3][3];  // column k: by which a position becomes its k-th fraction
  for (int axis = 0; axis < 3; ++axis) {
    Vector normal;
    cross(cell_[(axis + 1) % 3], cell_[(axis + 2) % 3], normal);
    const double volume = dot(cell_[axis], normal);
    double size = 1;
    for (const Vector& vector : cell_) size *= std::sqrt(dot(vector, vector));
    if (!(std::abs(volume) > 1e-10 * size) || !std::isfinite(volume))
      throw BadArgument("cell[0] has no independent lattice vector along each direction that repeats: "
                        "give the box, or periodic=False");
    for (int k = 0; k < 3; ++k) inverse[k][axis] = normal[k] / volume;
  }
  for (int axis = 0; axis < 3; ++axis) {
    axes_[axis].periodic = box.periodic[axis];
    fractions_[axis].resize(count);
    for (std::int64_t i = 0; i < count; ++i) {
      const double* const at = positions + 3 * i;
      fractions_[axis][i] =
          at[0] * inverse[0][axis] + at[1] * inverse[1][axis] + at[2] * inverse[2][axis];
    }
  }
  choose(cutoff, inverse);
  place(positions);
}

void Grid::choose(double cutoff, const double (&inverse)[3][3]) {
  double heights[3], wanted[3];  // distance of opposite faces; number of cells
  for (int axis = 0; axis < 3; ++axis) {
    const Vector normal = {inverse[0][axis], inverse[1][axis], inverse[2][axis]};
    heights[axis] = 1 / std::sqrt(dot(normal, normal));
    double extent = 1;
    axes_[axis].start = 0;
    if (!axes_[axis].periodic) {
      const auto [low, high] =
          std::minmax_element(fractions_[axis].begin(), fractions_[axis].end());
      axes_[axis].start = *low;
      extent = std::max(*high - *low, 1e-6 * cutoff / heights[axis]);
    }
    heights[axis] *= extent;
    axes_[axis].scale = 1 / extent;
    wanted[axis] = std::max(1.0, std::floor(heights[axis] / (0.5 * cutoff)));
  }
  // Few atoms far apart do not need a cell each.
  const double most = 4.0 * static_cast<double>(count_) + 64;
  while (wanted[0] * wanted[1] * wanted[2] > most) {
    double& largest = *std::max_element(wanted, wanted + 3);
    largest = std::max(1.0, std::floor(largest / 2));
  }
  for (int axis = 0; axis < 3; ++axis) {
    Axis& a = axes_[axis];
    a.cells = static_cast<std::int64_t>(wanted[axis]);
    // A little more, since fractions are rounded.
    double reach = std::ceil(cutoff * wanted[axis] / heights[axis] * (1 + 1e-12) + 1e-9);
    if (!a.periodic) reach = std::min(reach, wanted[axis] - 1);
    if (reach > 1e6)
      throw BadArgument("cutoff reaches over " + text(static_cast<std::int64_t>(reach)) +
                        " images of the cell: give a smaller one, or mend the cell");
    a.reach = static_cast<std::int64_t>(reach);
    a.scale *= wanted[axis];
  }
}

void Grid::place(const double* positions) {
  std::vector<std::int64_t> of(count_);
  std::vector<std::int32_t> wraps(3 * count_);
  starts_.assign(cells() + 1, 0);
  for (std::int64_t i = 0; i < count_; ++i) {
    std::int64_t cell = 0;
    for (int axis = 0; axis < 3; ++axis) {
      const Axis& a = axes_[axis];
      double s = fractions_[axis][i];
      double wrap = 0;
      if (a.periodic) {
        wrap = std::floor(s);
        if (!(std::abs(wrap) < 1e9))
          throw BadArgument("positions[0] has atom " + text(i) + " " + std::to_string(wrap) +
                            " cells away from the box: wrap it into the box");
        s -= wrap;
      }
      wraps[3 * i + axis] = static_cast<std::int32_t>(wrap);
      const auto at = static_cast<std::int64_t>((s - a.start) * a.scale);
      cell = cell * a.cells + std::clamp<std::int64_t>(at, 0, a.cells - 1);
    }
    of[i] = cell;
    ++starts_[cell + 1];
  }
  std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
  std::vector<std::int64_t> next(starts_.begin(), starts_.end() - 1);
  for (auto* list : {&x_, &y_, &z_}) list->resize(count_);
  atoms_.resize(count_);
  wraps_.resize(3 * count_);
  for (std::int64_t i = 0; i < count_; ++i) {
    const std::int64_t to = next[of[i]]++;
    const std::int32_t* const wrap = &wraps[3 * i];
    atoms_[to] = static_cast<std::int32_t>(i);
    std::copy_n(wrap, 3, &wraps_[3 * to]);
    double at[3];
    for (int k = 0; k < 3; ++k)
      at[k] = positions[3 * i + k] - (wrap[0] * cell_[0][k] + wrap[1] * cell_[1][k] +
                                      wrap[2] * cell_[2][k]);
    x_[to] = at[0], y_[to] = at[1], z_[to] = at[2];
  }
}

// The cell that a step from `at` leads to, and its image; false where nothing is.
bool step(const Axis& axis, std::int64_t at, std::int64_t by, std::int64_t& cell,
          std::int32_t& image) {
  cell = at + by;
  image = 0;
  if (axis.periodic) {
    const std::int64_t turns = cell >= 0 ? cell / axis.cells : -((axis.cells - 1 - cell) / axis.cells);
    image = static_cast<std::int32_t>(turns);
    cell -= turns * axis.cells;
    return true;
  }
  return cell >= 0 && cell < axis.cells;
}

void Grid::add(std::int64_t atom, const std::int32_t* found, std::int64_t count,
               const std::int32_t (&image)[3], std::vector<Pair>& out) const {
  const std::int32_t* const own = &wraps_[3 * atom];
  for (std::int64_t k = 0; k < count; ++k) {
    const std::int32_t* const wrap = &wraps_[3 * static_cast<std::int64_t>(found[k])];
    out.push_back({atoms_[atom],
                   atoms_[found[k]],
                   {image[0] - wrap[0] + own[0], image[1] - wrap[1] + own[1],
                    image[2] - wrap[2] + own[2]}});
  }
}

// Pairs of the atoms in the cells of one line along the last axis. Of the steps to other cells and
// images those are taken that are lexicographically positive: each pair is found from one end.
void Grid::search(const NeighbourKernels& kernels, std::int64_t line, double square,
                  std::vector<Pair>& out) const {
  const Points points = {x_.data(), y_.data(), z_.data()};
  const Axis &c = axes_[2];
  const std::int64_t first = line * c.cells, at_a = line / axes_[1].cells, at_b = line % axes_[1].cells;
  if (starts_[first] == starts_[first + c.cells]) return;
  std::vector<std::int32_t> found;
  for (std::int64_t da = 0; da <= axes_[0].reach; ++da) {
    for (std::int64_t db = da > 0 ? -axes_[1].reach : 0; db <= axes_[1].reach; ++db) {
      std::int64_t a, b;
      std::int32_t image[3];
      if (!step(axes_[0], at_a, da, a, image[0]) || !step(axes_[1], at_b, db, b, image[1])) continue;
      const std::int64_t other = (a * axes_[1].cells + b) * c.cells;
      if (starts_[other] == starts_[other + c.cells]) continue;
      const bool own_line = da == 0 && db == 0;
      for (std::int64_t home = 0; home < c.cells; ++home) {
        const std::int64_t begin = starts_[first + home], end = starts_[first + home + 1];
        if (begin == end) continue;
        // Stretches of the other line between which the image along the last axis changes.
        std::int64_t from = own_line ? home : home - c.reach;
        const std::int64_t last = home + c.reach;
        while (from <= last) {
          std::int64_t cell, to = last;
          if (!step(c, from, 0, cell, image[2])) {
            if (from >= c.cells) break;
            from = 0;
            continue;
          }
          to = std::min(last, from + (c.cells - 1 - cell));
          const std::int64_t start = starts_[other + cell], stop = starts_[other + cell + to - from + 1];
          const double move[3] = {
              image[0] * cell_[0][0] + image[1] * cell_[1][0] + image[2] * cell_[2][0],
              image[0] * cell_[0][1] + image[1] * cell_[1][1] + image[2] * cell_[2][1],
              image[0] * cell_[0][2] + image[1] * cell_[1][2] + image[2] * cell_[2][2]};
          const bool own = own_line && from == home;
          if (static_cast<std::int64_t>(found.size()) < stop - start + 8) found.resize(stop - start + 8);
          for (std::int64_t i = begin; i < end && start < stop; ++i) {
            const std::int64_t after = own ? i + 1 : start;
            const std::int64_t count = kernels.within(points, after, stop, x_[i] - move[0],
                                                      y_[i] - move[1], z_[i] - move[2], square,
                                                      found.data());
            add(i, found.data(), count, image, out);
          }
          from = to + 1;
        }
      }
    }
  }
}

}  // namespace

std::vector<std::vector<Pair>> find_pairs(const double* positions, std::int64_t count,
                                          const Box& box, double cutoff, std::int32_t threads) {
  if (count == 0) return {};
  const Grid grid(positions, count, box, cutoff);
  std::vector<std::vector<Pair>> found(grid.lines());
  const NeighbourKernels& kernels = OARLOCK_KERNELS(neighbour_kernels);
  std::atomic<bool> failed{false};  // a task must not throw
  parallel_for(grid.lines(), threads, [&](std::int64_t line) {
    try {
      grid.search(kernels, line, cutoff * cutoff, found[line]);
    } catch (const std::exception&) {
      failed = true;
    }
  });
  if (failed) throw std::bad_alloc();
  return found;
}

}  // namespace oarlock::atoms
