#include "atoms/deep_potential.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <vector>

#include "atoms/deep_potential_checks.h"
#include "atoms/deep_potential_parameters.h"
#include "core/dispatch.h"
#include "core/error.h"
#include "core/parallel.h"

OARLOCK_DECLARE_KERNELS(oarlock::atoms::DeepPotentialKernels<float>, deep_potential_floats)
OARLOCK_DECLARE_KERNELS(oarlock::atoms::DeepPotentialKernels<double>, deep_potential_doubles)

namespace oarlock::atoms {
namespace {

constexpr double kOverlap = 1e-3;  // Å; closer atoms are a mistake
constexpr std::int64_t kMostLanes = 16;

template <typename T>
const DeepPotentialKernels<T>& kernels();
template <>
const DeepPotentialKernels<float>& kernels() { return OARLOCK_KERNELS(deep_potential_floats); }
template <>
const DeepPotentialKernels<double>& kernels() { return OARLOCK_KERNELS(deep_potential_doubles); }

// Grows, and is not cleared.
template <typename T>
T* room(Buffer<T>& buffer, std::int64_t count) {
  if (buffer.size() < count) buffer.allocate(count + count / 4);
  return buffer.data();
}

struct Edge {
  std::int64_t number;
  double vector[3];
  std::int32_t atom, kind;  // of the block, of the neighbour
};

// What the blocks of a thread need, one after the other.
template <typename T>
struct Workspace {
  std::vector<Edge> edges;
  std::vector<Segment> segments;        // [atoms, kinds]
  std::vector<std::int64_t> numbers;    // of edges, by lane
  std::vector<std::int64_t> begins;     // strips of each kind
  Buffer<T> vectors, rows, slopes, gradients, features, sums, block, given, descriptors, scratch;
};

// What went wrong first, by the number of the atom.
struct Fault {
  std::atomic<std::int64_t> overlap{INT64_MAX}, beyond{INT64_MAX}, neighbour{INT64_MAX};
  std::atomic<bool> memory{false};
  static void note(std::atomic<std::int64_t>& at, std::int64_t atom) {
    std::int64_t before = at.load();
    while (atom < before && !at.compare_exchange_weak(before, atom)) {
    }
  }
};

template <typename T>
class Engine final : public DeepPotential {
 public:
  explicit Engine(const oarlock_atoms_deep_potential& model);
  void evaluate(const oarlock_atoms_structure& given, std::int32_t threads) const override;

 private:
  // Atoms of one element.
  struct Block {
    const std::int64_t* atoms;
    std::int64_t count, kind;
  };
  struct Call {
    const oarlock_atoms_structure& given;
    const DeepPotentialKernels<T>& kernels;
    double* slopes;  // [edges, 3], dE/dvector
    Fault& fault;
  };

  bool collect(const Call& call, const Block& block, Workspace<T>& work) const;
  bool sum_up(const Call& call, const Block& block, Workspace<T>& work) const;
  void spread(const Call& call, const Block& block, Workspace<T>& work) const;
  void run(const Call& call, const Block& block, Workspace<T>& work, double* virial) const;
  std::int64_t net(std::int64_t center, std::int64_t neighbour) const {
    return one_side_ ? neighbour : center * kinds_ + neighbour;
  }
  std::int64_t pitch() const { return tables_.empty() ? width_ : tables_.front().view().pitch; }

  std::int64_t kinds_, axis_, width_ = 0;
  bool one_side_;
  double cutoff_, scale_;
  std::vector<Environment<T>> environments_;
  std::vector<double> reference_, sel_;
  std::vector<T> nothing_;
  bool has_nothing_ = false;
  T per_neighbour_;
  std::vector<Network<T>> embeddings_, fittings_;
  std::vector<Table<T>> tables_;
};

template <typename T>
Engine<T>::Engine(const oarlock_atoms_deep_potential& model)
    : kinds_(model.kinds), axis_(model.axis), one_side_(model.one_side != 0), cutoff_(model.cutoff),
      scale_(model.scale), reference_(model.reference, model.reference + model.kinds),
      sel_(model.sel, model.sel + model.kinds) {
  const std::int64_t nets = one_side_ ? kinds_ : kinds_ * kinds_;
  double expected = 0;
  for (double count : sel_) expected += count;
  per_neighbour_ = T(1 / expected);
  for (std::int64_t kind = 0; kind < kinds_; ++kind) {
    Environment<T> of{T(model.cutoff), T(model.smooth), {}, {}};
    for (int c = 0; c < 4; ++c) {
      of.mean[c] = T(model.mean[kind * 4 + c]);
      of.inverse_deviation[c] = T(1 / model.deviation[kind * 4 + c]);
      has_nothing_ = has_nothing_ || model.mean[kind * 4 + c] != 0;
    }
    environments_.push_back(of);
  }
  for (std::int64_t one = 0; one < nets; ++one)
    embeddings_.emplace_back(model.embedding + one * model.embedding_layers, model.embedding_layers,
                             nullptr, false);
  width_ = embeddings_.front().outputs();
  if (model.tables != nullptr)
    for (std::int64_t one = 0; one < nets; ++one) tables_.emplace_back(model.tables[one], width_);
  for (std::int64_t kind = 0; kind < kinds_; ++kind) {
    const oarlock_atoms_layer* const layers = model.fitting + kind * (model.fitting_layers + 1);
    fittings_.emplace_back(layers, model.fitting_layers, layers + model.fitting_layers, true);
  }
  nothing_.assign(model.nothing, model.nothing + kinds_ * kinds_ * width_ * 4);
}

// Edges within the cut-off, by element of the neighbour and then by atom, each element from a new strip on.
template <typename T>
bool Engine<T>::collect(const Call& call, const Block& block, Workspace<T>& work) const {
  const oarlock_atoms_structure& given = call.given;
  const double most = cutoff_ * cutoff_;
  work.edges.clear();
  work.segments.assign(block.count * kinds_, {0, 0});
  for (std::int64_t a = 0; a < block.count; ++a) {
    const std::int64_t atom = block.atoms[a];
    const double* const from = given.positions + 3 * atom;
    for (std::int64_t e = given.offsets[atom]; e < given.offsets[atom + 1]; ++e) {
      const std::int64_t other = given.neighbours[e];
      if (other < 0 || other >= given.atoms) {
        Fault::note(call.fault.neighbour, atom);
        return false;
      }
      Edge edge;
      double square = 0;
      for (int c = 0; c < 3; ++c) {
        edge.vector[c] = given.positions[3 * other + c] - from[c];
        if (given.shifts != nullptr) edge.vector[c] += given.shifts[3 * e + c];
        square += edge.vector[c] * edge.vector[c];
      }
      if (square >= most) {
        for (int c = 0; c < 3; ++c) call.slopes[3 * e + c] = 0;
        continue;
      }
      if (square < kOverlap * kOverlap) {
        Fault::note(call.fault.overlap, atom);
        return false;
      }
      edge.number = e;
      edge.atom = std::int32_t(a);
      edge.kind = given.species[other];
      ++work.segments[a * kinds_ + edge.kind].end;
      work.edges.push_back(edge);
    }
  }
  work.begins.assign(kinds_ + 1, 0);
  for (std::int64_t kind = 0; kind < kinds_; ++kind) {
    std::int64_t lane = work.begins[kind] * kStrip;
    for (std::int64_t a = 0; a < block.count; ++a) {
      Segment& segment = work.segments[a * kinds_ + kind];
      segment = {lane, lane + segment.end};
      lane = segment.end;
    }
    work.begins[kind + 1] = (lane + kStrip - 1) / kStrip;
  }
  const std::int64_t strips = work.begins[kinds_];
  T* const vectors = room(work.vectors, strips * 3 * kStrip);
  work.numbers.assign(strips * kStrip, -1);
  for (std::int64_t strip = 0; strip < strips; ++strip)
    for (std::int64_t i = 0; i < 3 * kStrip; ++i)  // beyond the cut-off, where no edge is
      vectors[strip * 3 * kStrip + i] = i < kStrip ? T(2 * cutoff_) : T(0);
  for (Segment& segment : work.segments) segment.end = segment.begin;
  for (const Edge& edge : work.edges) {
    const std::int64_t lane = work.segments[edge.atom * kinds_ + edge.kind].end++;
    for (int c = 0; c < 3; ++c)
      vectors[(lane / kStrip * 3 + c) * kStrip + lane % kStrip] = T(edge.vector[c]);
    work.numbers[lane] = edge.number;
  }
  return true;
}

// Sums over neighbours of each atom, atoms in lanes: work.block [4 features, kBlock].
template <typename T>
bool Engine<T>::sum_up(const Call& call, const Block& block, Workspace<T>& work) const {
  const std::int64_t strips = work.begins[kinds_], size = 4 * pitch();
  const Environment<T>& of = environments_[block.kind];
  T* const rows = room(work.rows, strips * 4 * kStrip);
  call.kernels.environment(of, work.vectors.data(), strips, rows);
  T* const features = tables_.empty() ? room(work.features, strips * width_ * 2 * kStrip) : nullptr;
  T* const scratch = room(work.scratch, std::max(2 * embeddings_.front().widest() * 2 * kStrip,
                                                 (strips + 1) * 4 * kStrip * kMostLanes));
  if (tables_.empty())
    for (std::int64_t kind = 0; kind < kinds_; ++kind)
      call.kernels.embed(embeddings_[net(block.kind, kind)].view(),
                         rows + work.begins[kind] * 4 * kStrip,
                         work.begins[kind + 1] - work.begins[kind], scratch,
                         features + work.begins[kind] * width_ * 2 * kStrip);
  T* const sums = room(work.sums, size + kMostLanes);
  T* const lanes = room(work.block, 4 * width_ * kBlock);
  if (block.count < kBlock) std::fill(lanes, lanes + 4 * width_ * kBlock, T(0));
  const std::int64_t of_feature = tables_.empty() ? 4 : 1, of_row = tables_.empty() ? 1 : pitch();
  for (std::int64_t a = 0; a < block.count; ++a) {
    std::fill(sums, sums + size, T(0));
    for (std::int64_t kind = 0; kind < kinds_; ++kind) {
      const Segment& segment = work.segments[a * kinds_ + kind];
      if (segment.begin < segment.end) {
        if (tables_.empty()) {
          call.kernels.contract(features, rows, width_, segment, scratch, sums);
        } else if (!call.kernels.tabulated(tables_[net(block.kind, kind)].view(), rows, segment,
                                           sums)) {
          Fault::note(call.fault.beyond, block.atoms[a]);
          return false;
        }
      }
      if (!has_nothing_) continue;
      const T missing = T(sel_[kind] - double(segment.end - segment.begin));
      const T* const table = nothing_.data() + (block.kind * kinds_ + kind) * width_ * 4;
      for (std::int64_t k = 0; k < width_; ++k)
        for (int c = 0; c < 4; ++c)
          sums[k * of_feature + c * of_row] += missing * table[k * 4 + c];
    }
    for (std::int64_t k = 0; k < width_; ++k)
      for (int c = 0; c < 4; ++c)
        lanes[(k * 4 + c) * kBlock + a] = sums[k * of_feature + c * of_row] * per_neighbour_;
  }
  return true;
}

// The other way: work.given [4 features, kBlock] to dE/dvectors.
template <typename T>
void Engine<T>::spread(const Call& call, const Block& block, Workspace<T>& work) const {
  const std::int64_t strips = work.begins[kinds_];
  T* const slopes = room(work.slopes, strips * 4 * kStrip);
  std::fill(slopes, slopes + strips * 4 * kStrip, T(0));
  T* const own = work.sums.data();
  const std::int64_t of_feature = tables_.empty() ? 4 : 1, of_row = tables_.empty() ? 1 : pitch();
  if (!tables_.empty()) std::fill(own, own + 4 * pitch(), T(0));
  for (std::int64_t a = 0; a < block.count; ++a) {
    for (std::int64_t k = 0; k < width_; ++k)
      for (int c = 0; c < 4; ++c)
        own[k * of_feature + c * of_row] = work.given[(k * 4 + c) * kBlock + a] * per_neighbour_;
    for (std::int64_t kind = 0; kind < kinds_; ++kind) {
      const Segment& segment = work.segments[a * kinds_ + kind];
      if (segment.begin == segment.end) continue;
      if (tables_.empty())
        call.kernels.contract_back(work.features.data(), work.rows.data(), width_, segment, own,
                                   work.scratch.data(), slopes);
      else
        call.kernels.tabulated_back(tables_[net(block.kind, kind)].view(), work.rows.data(), segment,
                                    own, work.scratch.data(), slopes);
    }
  }
  T* const gradients = room(work.gradients, strips * 3 * kStrip);
  call.kernels.gradient(environments_[block.kind], work.vectors.data(), slopes, strips, gradients);
}

template <typename T>
void Engine<T>::run(const Call& call, const Block& block, Workspace<T>& work, double* virial) const {
  if (!collect(call, block, work) || !sum_up(call, block, work)) return;
  const Network<T>& fitting = fittings_[block.kind];
  T* const lanes = work.block.data();
  T* const descriptors = room(work.descriptors, width_ * axis_ * kBlock);
  call.kernels.describe(lanes, width_, axis_, descriptors);
  T energies[kBlock];
  T* const scratch =
      room(work.scratch, (fitting.all_outputs() + 2 * fitting.widest()) * kBlock);
  call.kernels.fit(fitting.view(), descriptors, scratch, energies);
  call.kernels.describe_back(descriptors, lanes, width_, axis_,
                             room(work.given, 4 * width_ * kBlock));
  spread(call, block, work);
  for (std::int64_t a = 0; a < block.count; ++a)
    call.given.energies[block.atoms[a]] = double(energies[a]) * scale_ + reference_[block.kind];
  const std::int64_t lanes_used = std::int64_t(work.numbers.size());
  for (std::int64_t lane = 0; lane < lanes_used; ++lane) {
    const std::int64_t number = work.numbers[lane];
    if (number < 0) continue;
    const std::int64_t at = lane / kStrip * 3 * kStrip + lane % kStrip;
    double slope[3];
    for (int c = 0; c < 3; ++c) {
      slope[c] = double(work.gradients[at + c * kStrip]) * scale_;
      call.slopes[3 * number + c] = slope[c];
    }
    for (int c = 0; c < 3; ++c)
      for (int d = 0; d < 3; ++d) virial[3 * c + d] -= slope[c] * double(work.vectors[at + d * kStrip]);
  }
}

// F_i = sum of the slopes of its own edges less those of edges that end at it, in the order of edges.
void add_forces(const oarlock_atoms_structure& given, const double* slopes, std::int32_t threads) {
  std::fill(given.forces, given.forces + 3 * given.atoms, 0.0);
  const std::int64_t ranges = threads;
  parallel_for(ranges, threads, [&](std::int64_t range) {
    const std::int64_t begin = given.atoms * range / ranges, end = given.atoms * (range + 1) / ranges;
    for (std::int64_t atom = 0; atom < given.owned; ++atom) {
      double own[3] = {0, 0, 0};
      for (std::int64_t e = given.offsets[atom]; e < given.offsets[atom + 1]; ++e) {
        const std::int64_t other = given.neighbours[e];
        const double* const slope = slopes + 3 * e;
        for (int c = 0; c < 3; ++c) own[c] += slope[c];
        if (other < begin || other >= end) continue;
        for (int c = 0; c < 3; ++c) given.forces[3 * other + c] -= slope[c];
      }
      if (atom < begin || atom >= end) continue;
      for (int c = 0; c < 3; ++c) given.forces[3 * atom + c] += own[c];
    }
  });
}

// The virial by the atoms at which edges begin.
void add_virials(const oarlock_atoms_structure& given, const double* slopes, std::int32_t threads) {
  std::fill(given.virials, given.virials + 9 * given.owned, 0.0);
  const std::int64_t parts = threads;
  parallel_for(parts, threads, [&](std::int64_t part) {
    for (std::int64_t i = given.owned * part / parts; i < given.owned * (part + 1) / parts; ++i)
      for (std::int64_t e = given.offsets[i]; e < given.offsets[i + 1]; ++e) {
        const double* const other = given.positions + 3 * std::int64_t(given.neighbours[e]);
        for (int d = 0; d < 3; ++d) {
          double vector = other[d] - given.positions[3 * i + d];
          if (given.shifts != nullptr) vector += given.shifts[3 * e + d];
          for (int c = 0; c < 3; ++c)
            given.virials[9 * i + 3 * c + d] -= slopes[3 * e + c] * vector;
        }
      }
  });
}

template <typename T>
void Engine<T>::evaluate(const oarlock_atoms_structure& given, std::int32_t threads) const {
  check(given, kinds_);
  std::vector<std::int64_t> order;
  std::vector<std::int64_t> starts{0};
  for (std::int64_t kind = 0; kind < kinds_; ++kind) {
    for (std::int64_t atom = 0; atom < given.owned; ++atom)
      if (given.species[atom] == kind) order.push_back(atom);
    starts.push_back(std::int64_t(order.size()));
  }
  std::vector<Block> blocks;
  for (std::int64_t kind = 0; kind < kinds_; ++kind) {
    // As even as can be, so that threads end together.
    const std::int64_t count = starts[kind + 1] - starts[kind], parts = (count + kBlock - 1) / kBlock;
    for (std::int64_t part = 0; part < parts; ++part) {
      const std::int64_t begin = count * part / parts, end = count * (part + 1) / parts;
      blocks.push_back({order.data() + starts[kind] + begin, end - begin, kind});
    }
  }
  Buffer<double> slopes(3 * (given.rows > 0 ? given.offsets[given.rows] : 0) + 1);
  std::vector<double> virials(9 * blocks.size(), 0.0);
  Fault fault;
  const Call call{given, kernels<T>(), slopes.data(), fault};
  parallel_for(std::int64_t(blocks.size()), threads, [&](std::int64_t number) {
    thread_local Workspace<T> work;
    try {
      run(call, blocks[number], work, virials.data() + 9 * number);
    } catch (const std::bad_alloc&) {
      fault.memory = true;
    }
  });
  if (fault.memory) throw std::bad_alloc();
  if (fault.neighbour != INT64_MAX)
    throw BadArgument("a neighbour of atom " + std::to_string(fault.neighbour) +
                      " is not among the " + std::to_string(given.atoms) + " atoms");
  if (fault.overlap != INT64_MAX)
    throw BadArgument("atom " + std::to_string(fault.overlap) +
                      " and one of its neighbours overlap: mend the positions or the box");
  if (fault.beyond != INT64_MAX)
    throw BadArgument("atom " + std::to_string(fault.beyond) +
                      " has a neighbour closer than the tables reach: compress with a smaller "
                      "`closest`, or mend the positions");
  std::fill(given.virial, given.virial + 9, 0.0);
  for (std::size_t i = 0; i < virials.size(); ++i) given.virial[i % 9] += virials[i];
  add_forces(given, slopes.data(), threads);
  if (given.virials != nullptr) add_virials(given, slopes.data(), threads);
}

}  // namespace

std::unique_ptr<DeepPotential> DeepPotential::make(const oarlock_atoms_deep_potential& model) {
  check(model);
  if (model.bits == 32) return std::make_unique<Engine<float>>(model);
  return std::make_unique<Engine<double>>(model);
}

}  // namespace oarlock::atoms
