// Entry points of Deep Potentials.

#include "atoms/deep_potential.h"
#include "core/error.h"
#include "core/tensors.h"

using namespace oarlock;
using namespace oarlock::atoms;

OARLOCK_API std::int32_t oarlock_atoms_deep_potential_create(
    const oarlock_atoms_deep_potential* model, void** out) {
  return guarded([&] { *out = DeepPotential::make(*model).release(); });
}

OARLOCK_API void oarlock_atoms_deep_potential_destroy(void* potential) {
  delete static_cast<DeepPotential*>(potential);
}

OARLOCK_API std::int32_t oarlock_atoms_deep_potential_evaluate(const void* potential,
                                                              const oarlock_atoms_structure* given,
                                                              std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    static_cast<const DeepPotential*>(potential)->evaluate(*given, threads);
  });
}
