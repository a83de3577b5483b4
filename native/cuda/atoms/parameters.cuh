// The parameters of a Deep Potential on the GPU.
#pragma once

#include <vector>

#include "atoms/array.cuh"
#include "atoms/tables.cuh"

namespace oarlock::cuda::atoms {

template <typename T>
Array<T> upload_as(const std::vector<T>& values) {
  Array<T> found(static_cast<std::int64_t>(values.size()));
  found.upload(values.data(), static_cast<std::int64_t>(values.size()));
  check(cudaStreamSynchronize(stream()), "upload");  // before the values go
  return found;
}

template <typename T>
Array<T> upload_as(const double* values, std::int64_t count) {
  return upload_as(std::vector<T>(values, values + count));
}

template <typename T>
struct Layer {
  Layer(const oarlock_atoms_layer& one)
      : inputs(one.inputs), outputs(one.outputs),
        repeats(one.outputs == one.inputs ? 1 : one.outputs == 2 * one.inputs ? 2 : 0),
        weight(upload_as<T>(one.weight, one.inputs * one.outputs)),
        bias(upload_as<T>(one.bias, one.outputs)) {
    if (one.timestep != nullptr) timestep = upload_as<T>(one.timestep, one.outputs);
    std::vector<T> turned(one.inputs * one.outputs);
    for (std::int64_t i = 0; i < one.inputs; ++i)
      for (std::int64_t o = 0; o < one.outputs; ++o)
        turned[o * one.inputs + i] = T(one.weight[i * one.outputs + o]);
    transposed = upload_as(turned);
  }
  std::int64_t inputs, outputs, repeats;  // repeats: of the inputs in the shortcut, or 0
  Array<T> weight, transposed, bias, timestep;
};

template <typename T>
struct Nodes {
  Nodes(const oarlock_atoms_table& given, std::int64_t features, std::int64_t pitch)
      : first(T(given.first)), inverse_step(T(1 / given.step)), intervals(given.intervals) {
    const std::int64_t lines = (given.intervals + 1) * 4;
    std::vector<T> padded(lines * pitch, T(0));
    for (std::int64_t line = 0; line < lines; ++line)
      for (std::int64_t k = 0; k < features; ++k)
        padded[line * pitch + k] = T(given.nodes[line * features + k]);
    nodes = upload_as(padded);
  }
  Table<T> view() const {
    return {nodes.data(), first, inverse_step, static_cast<std::int32_t>(intervals)};
  }
  Array<T> nodes;
  T first, inverse_step;
  std::int64_t intervals;
};

}  // namespace oarlock::cuda::atoms
