// Lists of neighbours on the GPU, with the edges that lead back to each atom, in the order of edges.
#pragma once

#include <cstdint>

#include "atoms/array.cuh"
#include "atoms/deep_potential_options.h"

namespace oarlock::cuda::atoms {

constexpr int kWarp = 32, kWarps = 4;  // warps of a block where each has an atom

// As kernels read them.
struct Rows {
  std::int64_t atoms, owned;
  const std::int64_t* offsets;
  const std::int32_t* neighbours;
  const double* shifts;  // or null
  const std::int32_t* species;
};

class Lists {
 public:
  Lists() = default;
  // Throws BadArgument for a neighbour that is none of the atoms.
  explicit Lists(const oarlock_atoms_structure& given);

  Rows rows() const {
    return {atoms_, owned_, offsets_.data(), neighbours_.data(), has_shifts_ ? shifts_.data() : nullptr,
            species_.data()};
  }
  std::int64_t atoms() const { return atoms_; }
  std::int64_t owned() const { return owned_; }
  std::int64_t edges() const { return edges_; }
  const std::int32_t* back() const { return back_.data(); }
  const std::int32_t* back_begins() const { return back_begins_.data(); }

 private:
  std::int64_t atoms_ = 0, owned_ = 0, edges_ = 0;  // edges of owned atoms
  bool has_shifts_ = false;
  Array<std::int64_t> offsets_;
  Array<std::int32_t> neighbours_, species_;
  Array<double> shifts_;
  Array<std::int32_t> back_, back_begins_;  // [edges], [atoms + 1]
};

}  // namespace oarlock::cuda::atoms
