#include "atoms/deep_potential.cuh"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "atoms/deep_potential_checks.h"
#include "atoms/forces.cuh"
#include "atoms/layers.cuh"
#include "atoms/neighbours_sums.cuh"
#include "atoms/parameters.cuh"
#include "core/error.h"
#include "core/launch.cuh"

namespace oarlock::cuda::atoms {
namespace {

constexpr std::int64_t kMostRows = 22528;       // atoms that go through together
constexpr std::size_t kMostShared = 99 << 10;  // bytes that every GPU since capability 8.0 gives a block
constexpr unsigned long long kNone = ~0ull;

unsigned blocks_of(std::int64_t count, std::int64_t of_block) {
  return static_cast<unsigned>((count + of_block - 1) / of_block);
}

class Device {
 public:
  explicit Device(int id) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    check(cudaSetDevice(id), "cudaSetDevice");
  }
  ~Device() { cudaSetDevice(before_); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

 private:
  int before_ = 0;
};

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

class Clock {
 public:
  Clock() {
    for (cudaEvent_t& event : events_) check(cudaEventCreate(&event), "cudaEventCreate");
  }
  ~Clock() {
    for (cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  void mark(int which) { check(cudaEventRecord(events_[which], stream()), "cudaEventRecord"); }
  double between(int which) const {
    float found = 0;
    cudaEventElapsedTime(&found, events_[which], events_[which + 1]);
    return found;
  }

 private:
  cudaEvent_t events_[4];
};

template <typename T>
class Engine final : public DeepPotential {
 public:
  explicit Engine(const oarlock_atoms_deep_potential& model);
  void set_lists(const oarlock_atoms_structure& given) override;
  void evaluate(const oarlock_atoms_structure& given) override;
  Milliseconds times() const override { return times_; }
  int device() const override { return device_; }

 private:
  void run(std::int64_t kind, const std::int32_t* atoms, std::int64_t count);
  void fit(const Batch<T>& batch, std::int64_t kind);
  void multiply(const Product<T>& product) const;
  std::int64_t widest() const;

  int device_ = current_device();
  std::int64_t kinds_, axis_, width_, pitch_, processors_ = 1;
  double cutoff_, scale_;
  T per_neighbour_;
  bool has_nothing_ = false;
  std::vector<double> reference_;
  std::vector<Environment<T>> environments_;
  std::vector<Nodes<T>> nodes_;
  Array<Table<T>> tables_;  // [centres, neighbours]
  Array<T> nothing_, sel_;
  std::vector<std::vector<Layer<T>>> fittings_;
  struct Last {
    Array<T> weight;
    T bias;
  };
  std::vector<Last> lasts_;

  Lists lists_;
  std::vector<std::int64_t> starts_;  // of each element in the order of atoms
  Array<std::int32_t> order_;
  Array<double> positions_, slopes_, own_, forces_, energies_, parts_;
  Array<Faults> faults_;
  Array<T> sums_, descriptors_, rooms_[2];
  std::vector<Array<T>> tangents_;
  Clock clock_;
  Milliseconds times_{};
};

template <typename T>
Engine<T>::Engine(const oarlock_atoms_deep_potential& model)
    : kinds_(model.kinds), axis_(model.axis), width_(model.embedding[model.embedding_layers - 1].outputs),
      pitch_((width_ + kTogether - 1) / kTogether * kTogether), cutoff_(model.cutoff),
      scale_(model.scale), reference_(model.reference, model.reference + model.kinds) {
  if (std::max({describe_bytes<T>(width_, pitch_, axis_), forward_bytes<T>(kinds_, pitch_),
                backward_bytes<T>()}) > kMostShared)
    throw BadArgument("axis=" + std::to_string(axis_) + " of " + std::to_string(width_) +
                      " features is more than the memory of a GPU's processor holds: use the CPU");
  int processors = 0;
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device_),
        "cudaDeviceGetAttribute");
  processors_ = processors;
  double expected = 0;
  for (std::int64_t kind = 0; kind < kinds_; ++kind) expected += model.sel[kind];
  per_neighbour_ = T(1 / expected);
  sel_ = upload_as<T>(model.sel, kinds_);
  for (std::int64_t kind = 0; kind < kinds_; ++kind) {
    Environment<T> of{model.cutoff, T(model.smooth), T(1 / (model.cutoff - model.smooth)), {}, {}};
    for (int c = 0; c < 4; ++c) {
      of.mean[c] = T(model.mean[kind * 4 + c]);
      of.inverse_deviation[c] = T(1 / model.deviation[kind * 4 + c]);
      has_nothing_ = has_nothing_ || model.mean[kind * 4 + c] != 0;
    }
    environments_.push_back(of);
  }
  const std::int64_t nets = model.one_side ? kinds_ : kinds_ * kinds_;
  for (std::int64_t net = 0; net < nets; ++net) nodes_.emplace_back(model.tables[net], width_, pitch_);
  std::vector<Table<T>> tables;
  std::vector<T> nothing(kinds_ * kinds_ * 4 * pitch_, T(0));
  for (std::int64_t pair = 0; pair < kinds_ * kinds_; ++pair) {
    tables.push_back(nodes_[model.one_side ? pair % kinds_ : pair].view());
    for (std::int64_t k = 0; k < width_; ++k)
      for (int c = 0; c < 4; ++c)
        nothing[(pair * 4 + c) * pitch_ + k] = T(model.nothing[(pair * width_ + k) * 4 + c]);
  }
  tables_ = upload_as(tables);
  nothing_ = upload_as(nothing);
  for (std::int64_t kind = 0; kind < kinds_; ++kind) {
    const oarlock_atoms_layer* const layers = model.fitting + kind * (model.fitting_layers + 1);
    std::vector<Layer<T>> fitting;
    for (std::int64_t l = 0; l < model.fitting_layers; ++l) fitting.emplace_back(layers[l]);
    fittings_.push_back(std::move(fitting));
    const oarlock_atoms_layer& last = layers[model.fitting_layers];
    lasts_.push_back({upload_as<T>(last.weight, last.inputs), T(*last.bias)});
  }
  tangents_.resize(model.fitting_layers);
  faults_.reserve(1);
  parts_.reserve(9 * kParts);
}

template <typename T>
std::int64_t Engine<T>::widest() const {
  std::int64_t most = 0;
  for (const auto& fitting : fittings_)
    for (const Layer<T>& layer : fitting) most = std::max(most, layer.outputs);
  return most;
}

template <typename T>
void Engine<T>::set_lists(const oarlock_atoms_structure& given) {
  const Device use(device_);
  oarlock::atoms::check(given, kinds_);
  Lists lists(given);
  std::vector<std::int32_t> order;
  std::vector<std::int64_t> starts{0};
  for (std::int64_t kind = 0; kind < kinds_; ++kind) {
    for (std::int64_t atom = 0; atom < given.owned; ++atom)
      if (given.species[atom] == kind) order.push_back(static_cast<std::int32_t>(atom));
    starts.push_back(static_cast<std::int64_t>(order.size()));
  }
  Array<std::int32_t> on_gpu = upload_as(order);
  std::int64_t rows = 0;
  for (std::int64_t kind = 0; kind < kinds_; ++kind)
    rows = std::max(rows, std::min(kMostRows, starts[kind + 1] - starts[kind]));
  starts_.clear();  // none, should there be no room for what follows
  lists_ = Lists();
  positions_.reserve(3 * given.atoms);
  forces_.reserve(3 * given.atoms);
  energies_.reserve(given.owned);
  own_.reserve(12 * given.owned);
  slopes_.reserve(3 * lists.edges());
  sums_.reserve(rows * 4 * pitch_);
  descriptors_.reserve(rows * width_ * axis_);
  for (Array<T>& room : rooms_) room.reserve(rows * widest());
  for (std::size_t l = 0; l < tangents_.size(); ++l) {
    std::int64_t most = 0;
    for (const auto& fitting : fittings_) most = std::max(most, fitting[l].outputs);
    tangents_[l].reserve(rows * most);
  }
  lists_ = std::move(lists);
  starts_ = std::move(starts);
  order_ = std::move(on_gpu);
}

template <typename T>
void Engine<T>::multiply(const Product<T>& p) const {
  const auto blocks = [&](auto shape) {
    using Shape = decltype(shape);
    return std::int64_t{blocks_of(p.rows, Shape::kRows)} * blocks_of(p.columns, Shape::kColumns);
  };
  constexpr int kMost = 16 / sizeof(T);
  const auto start = [&](auto shape) {
    using Shape = decltype(shape);
    launch("deep potential multiply",
           p.inner % kMost == 0 && p.columns % kMost == 0 ? atoms::multiply<T, Shape, kMost>
                                                          : atoms::multiply<T, Shape, 1>,
           dim3(unsigned(blocks(shape))), Shape::kThreads, Shape::kBytes, p);
  };
  if (blocks(LargeTile<T>{}) >= processors_)
    start(LargeTile<T>{});
  else
    start(SmallTile<T>{});
}

// Energies of descriptors, which become their slopes.
template <typename T>
void Engine<T>::fit(const Batch<T>& batch, std::int64_t kind) {
  const std::vector<Layer<T>>& layers = fittings_[kind];
  T* x = batch.descriptors;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const Layer<T>& layer = layers[l];
    T* const next = rooms_[l % 2].data();
    multiply({x, layer.weight.data(), batch.count, std::int32_t(layer.inputs),
              std::int32_t(layer.outputs), layer.bias.data(), layer.timestep.data(),
              tangents_[l].data(), next, layer.repeats ? x : nullptr,
              std::int32_t(std::max<std::int64_t>(layer.repeats, 1))});
    x = next;
  }
  const Layer<T>& last = layers.back();
  T* given = rooms_[layers.size() % 2].data();
  launch("deep potential end", end<T>, dim3(blocks_of(batch.count, kWarps)), kWarps * kWarp, 0,
         Ending<T>{x, lasts_[kind].weight.data(), last.timestep.data(), tangents_.back().data(), given,
                   batch.count, std::int32_t(last.outputs), lasts_[kind].bias, scale_,
                   reference_[kind], batch.atoms, energies_.data()});
  for (std::size_t l = layers.size(); l-- > 0;) {
    const Layer<T>& layer = layers[l];
    T* const next =
        l == 0 ? batch.descriptors : rooms_[given == rooms_[0].data() ? 1 : 0].data();
    multiply({tangents_[l].data(), layer.transposed.data(), batch.count,
              std::int32_t(layer.outputs), std::int32_t(layer.inputs), nullptr,
              l == 0 ? nullptr : layers[l - 1].timestep.data(),
              l == 0 ? nullptr : tangents_[l - 1].data(), next, layer.repeats ? given : nullptr,
              std::int32_t(std::max<std::int64_t>(layer.repeats, 1))});
    given = next;
  }
}

template <typename T>
void Engine<T>::run(std::int64_t kind, const std::int32_t* atoms, std::int64_t count) {
  const Batch<T> batch{lists_.rows(),
                       positions_.data(),
                       atoms,
                       count,
                       std::int32_t(kinds_),
                       std::int32_t(width_),
                       std::int32_t(pitch_),
                       std::int32_t(axis_),
                       environments_[kind],
                       tables_.data() + kind * kinds_,
                       has_nothing_ ? nothing_.data() + kind * kinds_ * 4 * pitch_ : nullptr,
                       sel_.data(),
                       per_neighbour_,
                       scale_,
                       faults_.data(),
                       sums_.data(),
                       descriptors_.data(),
                       slopes_.data(),
                       own_.data()};
  const dim3 blocks(blocks_of(count, kWarps));
  launch("deep potential sum_up", sum_up<T>, blocks, kWarps * kWarp, forward_bytes<T>(kinds_, pitch_),
         batch);
  fit(batch, kind);
  launch("deep potential describe_back", describe_back<T>, dim3(unsigned(count)), kDescribeThreads,
         describe_bytes<T>(width_, pitch_, axis_), batch);
  launch("deep potential spread", spread<T>, blocks, kWarps * kWarp, backward_bytes<T>(), batch);
}

template <typename T>
void Engine<T>::evaluate(const oarlock_atoms_structure& given) {
  const Device use(device_);
  if (given.atoms != lists_.atoms() || given.owned != lists_.owned() || starts_.empty())
    throw BadArgument("positions of " + std::to_string(given.atoms) + " atoms, " +
                      std::to_string(given.owned) + " owned, but the lists are of " +
                      std::to_string(lists_.atoms()) + " and " + std::to_string(lists_.owned()));
  clock_.mark(0);
  positions_.upload(given.positions, 3 * given.atoms);
  faults_.fill_bytes(0xff, 1);
  clock_.mark(1);
  for (std::int64_t kind = 0; kind < kinds_; ++kind)
    for (std::int64_t first = starts_[kind]; first < starts_[kind + 1]; first += kMostRows)
      run(kind, order_.data() + first, std::min(kMostRows, starts_[kind + 1] - first));
  if (given.atoms > 0)
    launch("deep potential add_forces", add_forces, dim3(blocks_of(given.atoms, kWarps)),
           kWarps * kWarp, 0, given.atoms, given.owned, lists_.back_begins(), lists_.back(),
           slopes_.data(), own_.data(), forces_.data());
  launch("deep potential add_virials", add_virials, dim3(kParts), kPartThreads, 0, given.owned,
         own_.data(), parts_.data());
  clock_.mark(2);
  Faults faults{};
  faults_.download(&faults, 1);
  check(cudaStreamSynchronize(stream()), "evaluate");
  if (faults.overlap != kNone)
    throw BadArgument("atom " + std::to_string(faults.overlap) +
                      " and one of its neighbours overlap: mend the positions or the box");
  if (faults.beyond != kNone)
    throw BadArgument("atom " + std::to_string(faults.beyond) +
                      " has a neighbour closer than the tables reach: compress with a smaller "
                      "`closest`, or mend the positions");
  std::vector<double> parts(9 * kParts);
  parts_.download(parts.data(), 9 * kParts);
  energies_.download(given.energies, given.owned);
  forces_.download(given.forces, 3 * given.atoms);
  std::vector<double> own(given.virials != nullptr ? 12 * given.owned : 0);
  own_.download(own.data(), std::int64_t(own.size()));
  clock_.mark(3);
  check(cudaStreamSynchronize(stream()), "evaluate");
  std::fill(given.virial, given.virial + 9, 0.0);
  for (std::size_t i = 0; i < parts.size(); ++i) given.virial[i % 9] += parts[i];
  if (given.virials != nullptr)
    for (std::int64_t i = 0; i < 9 * given.owned; ++i)
      given.virials[i] = own[i / 9 * 12 + 3 + i % 9];
  times_ = {clock_.between(0), clock_.between(1), clock_.between(2)};
}

}  // namespace

std::unique_ptr<DeepPotential> DeepPotential::make(const oarlock_atoms_deep_potential& model) {
  oarlock::atoms::check(model);
  if (model.tables == nullptr)
    throw BadArgument("a GPU takes Deep Potentials with tables: pass tables=compress(model)");
  if (model.bits == 32) return std::make_unique<Engine<float>>(model);
  return std::make_unique<Engine<double>>(model);
}

}  // namespace oarlock::cuda::atoms
