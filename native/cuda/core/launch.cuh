// Starting a kernel on the stream of the call. tests/cuda_on_cpu has another one, which runs it.
#pragma once

#include "core/device.cuh"

namespace oarlock::cuda {

// `shared` bytes of dynamic shared memory.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 blocks, unsigned threads,
            std::size_t shared, const Arguments&... arguments) {
  if (shared > 48 << 10)
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared)),
          name);
  kernel<<<blocks, threads, shared, stream()>>>(static_cast<Parameters>(arguments)...);
  check(cudaGetLastError(), name);
}

}  // namespace oarlock::cuda
