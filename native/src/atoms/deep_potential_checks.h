// What the CPU and GPUs ask of a Deep Potential and of atoms. Both throw BadArgument.
#pragma once

#include "atoms/deep_potential_options.h"

namespace oarlock::atoms {

void check(const oarlock_atoms_deep_potential& model);

// Counts, species and offsets; neighbours are checked where they are read.
void check(const oarlock_atoms_structure& given, std::int64_t kinds);

}  // namespace oarlock::atoms
