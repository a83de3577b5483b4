// A Deep Potential with fixed parameters on a GPU: lists of neighbours now and then, positions each step.
#pragma once

#include <cstdint>
#include <memory>

#include "atoms/deep_potential_options.h"

namespace oarlock::cuda::atoms {

// Of the last call, by the GPU's clock.
struct Milliseconds {
  double upload, compute, download;
};

class DeepPotential {
 public:
  // Copies the parameters. Throws BadArgument where they do not fit together, or are too large.
  static std::unique_ptr<DeepPotential> make(const oarlock_atoms_deep_potential& model);

  virtual ~DeepPotential() = default;

  // Takes all but positions. Throws BadArgument for indices out of range; the lists before then stay.
  virtual void set_lists(const oarlock_atoms_structure& given) = 0;
  // Energies, forces and virials of positions, all in the host's memory. Throws BadArgument for overlapping
  // atoms, and atoms closer than tables reach. The same bits every time.
  virtual void evaluate(const oarlock_atoms_structure& given) = 0;
  virtual Milliseconds times() const = 0;
  virtual int device() const = 0;
};

}  // namespace oarlock::cuda::atoms
