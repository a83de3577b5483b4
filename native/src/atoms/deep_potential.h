// A Deep Potential with fixed parameters: atoms and their lists of neighbours to energies, forces, virial.
#pragma once

#include <cstdint>
#include <memory>

#include "atoms/deep_potential_options.h"

namespace oarlock::atoms {

class DeepPotential {
 public:
  // Copies the parameters. Throws BadArgument where they do not fit together.
  static std::unique_ptr<DeepPotential> make(const oarlock_atoms_deep_potential& model);

  virtual ~DeepPotential() = default;

  // Throws BadArgument for indices out of range, overlapping atoms, and atoms closer than tables reach. The same
  // bits for any number of threads.
  virtual void evaluate(const oarlock_atoms_structure& given, std::int32_t threads) const = 0;
};

}  // namespace oarlock::atoms
