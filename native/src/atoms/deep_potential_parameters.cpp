#include "atoms/deep_potential_parameters.h"

#include <algorithm>

namespace oarlock::atoms {

template <typename T>
const T* Network<T>::keep(const double* values, std::int64_t count) {
  kept_.emplace_back(count);
  std::transform(values, values + count, kept_.back().data(), [](double x) { return T(x); });
  return kept_.back().data();
}

template <typename T>
const T* Network<T>::pack(const double* weight, std::int64_t inputs, std::int64_t outputs,
                          bool transpose) {
  const std::int64_t tiles = (outputs + kTileRows - 1) / kTileRows;
  kept_.emplace_back(inputs * outputs);
  T* to = kept_.back().data();
  for (std::int64_t tile = 0; tile < tiles; ++tile)
    for (std::int64_t k = 0; k < inputs; ++k)
      for (std::int64_t n = outputs * tile / tiles; n < outputs * (tile + 1) / tiles; ++n)
        *to++ = T(transpose ? weight[n * inputs + k] : weight[k * outputs + n]);
  return kept_.back().data();
}

template <typename T>
Network<T>::Network(const oarlock_atoms_layer* layers, std::int64_t count,
                    const oarlock_atoms_layer* last, bool backward) {
  for (const oarlock_atoms_layer* one = layers; one < layers + count; ++one) {
    LayerOf<T> layer{};
    layer.inputs = one->inputs;
    layer.outputs = one->outputs;
    layer.repeats = one->outputs == one->inputs ? 1 : one->outputs == 2 * one->inputs ? 2 : 0;
    layer.weight = pack(one->weight, one->inputs, one->outputs, false);
    if (backward) layer.transposed = pack(one->weight, one->outputs, one->inputs, true);
    layer.bias = keep(one->bias, one->outputs);
    if (one->timestep != nullptr) layer.timestep = keep(one->timestep, one->outputs);
    layers_.push_back(layer);
  }
  if (last == nullptr) return;
  last_ = keep(last->weight, last->inputs);
  last_bias_ = T(*last->bias);
}

template <typename T>
std::int64_t Network<T>::widest() const {
  std::int64_t most = 0;
  for (const LayerOf<T>& layer : layers_) most = std::max(most, layer.outputs);
  return most;
}

template <typename T>
std::int64_t Network<T>::all_outputs() const {
  std::int64_t sum = 0;
  for (const LayerOf<T>& layer : layers_) sum += layer.outputs;
  return sum;
}

template <typename T>
Table<T>::Table(const oarlock_atoms_table& given, std::int64_t features) {
  const std::int64_t pitch = (features + kStrip - 1) / kStrip * kStrip;
  const std::int64_t lines = (given.intervals + 1) * 4;
  nodes_.allocate(lines * pitch);
  for (std::int64_t line = 0; line < lines; ++line)
    for (std::int64_t k = 0; k < pitch; ++k)
      nodes_[line * pitch + k] = k < features ? T(given.nodes[line * features + k]) : T(0);
  view_ = {nodes_.data(), T(given.first), T(1 / given.step), given.intervals, pitch};
}

template class Network<float>;
template class Network<double>;
template class Table<float>;
template class Table<double>;

}  // namespace oarlock::atoms
