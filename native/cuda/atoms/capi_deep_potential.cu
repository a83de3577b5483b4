// Entry points of Deep Potentials on a GPU. Lists are set apart from positions, which change more often.

#include "atoms/deep_potential.cuh"
#include "core/device.cuh"
#include "core/error.h"
#include "core/tensors.h"

using namespace oarlock;
using cuda::atoms::DeepPotential;

OARLOCK_API std::int32_t oarlock_cuda_deep_potential_create(
    const oarlock_atoms_deep_potential* model, void** out) {
  return guarded([&] { *out = DeepPotential::make(*model).release(); });
}

OARLOCK_API void oarlock_cuda_deep_potential_destroy(void* potential) {
  const auto own = static_cast<DeepPotential*>(potential);
  int before = 0;
  cudaGetDevice(&before);
  cudaSetDevice(own->device());
  delete own;
  cudaSetDevice(before);
}

OARLOCK_API std::int32_t oarlock_cuda_deep_potential_set_lists(void* potential,
                                                              const oarlock_atoms_structure* given) {
  return guarded([&] { static_cast<DeepPotential*>(potential)->set_lists(*given); });
}

OARLOCK_API std::int32_t oarlock_cuda_deep_potential_evaluate(void* potential,
                                                             const oarlock_atoms_structure* given) {
  return guarded([&] { static_cast<DeepPotential*>(potential)->evaluate(*given); });
}

// Milliseconds [3] of the last call, by the GPU: positions there, kernels, results back.
OARLOCK_API std::int32_t oarlock_cuda_deep_potential_times(const void* potential, double* times) {
  return guarded([&] {
    const auto found = static_cast<const DeepPotential*>(potential)->times();
    times[0] = found.upload, times[1] = found.compute, times[2] = found.download;
  });
}
