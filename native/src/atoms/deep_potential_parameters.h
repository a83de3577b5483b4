// The parameters of a Deep Potential as kernels read them.
#pragma once

#include <vector>

#include "atoms/deep_potential_kernels.h"
#include "atoms/deep_potential_options.h"
#include "core/buffer.h"

namespace oarlock::atoms {

template <typename T>
class Network {
 public:
  // `last`: one output and no tanh, or null. Without `backward` no gradient can be taken by what goes in.
  Network(const oarlock_atoms_layer* layers, std::int64_t count, const oarlock_atoms_layer* last,
          bool backward);
  NetworkOf<T> view() const { return {layers_.data(), std::int64_t(layers_.size()), last_, last_bias_}; }
  std::int64_t inputs() const { return layers_.front().inputs; }
  std::int64_t outputs() const { return layers_.back().outputs; }
  std::int64_t widest() const;
  std::int64_t all_outputs() const;

 private:
  const T* keep(const double* values, std::int64_t count);
  const T* pack(const double* weight, std::int64_t inputs, std::int64_t outputs, bool transpose);

  std::vector<LayerOf<T>> layers_;
  std::vector<Buffer<T>> kept_;
  const T* last_ = nullptr;
  T last_bias_ = 0;
};

template <typename T>
class Table {
 public:
  Table(const oarlock_atoms_table& given, std::int64_t features);
  TableOf<T> view() const { return view_; }

 private:
  Buffer<T> nodes_;
  TableOf<T> view_;
};

}  // namespace oarlock::atoms
