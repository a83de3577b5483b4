#include "core/openmp.h"

#include <dlfcn.h>

#include <atomic>

namespace oarlock {

const OpenMp* paddle_openmp() {
  static OpenMp runtime;
  static std::atomic<int> state{0};  // 1: being filled, 2: ready, 3: of no use
  const int now = state.load(std::memory_order_acquire);
  if (now == 2) return &runtime;
  if (now != 0) return nullptr;
  // RTLD_NOLOAD: only if somebody else has loaded it. The handle keeps it loaded from then on.
  void* library = dlopen("libiomp5.so", RTLD_NOLOAD | RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) return nullptr;
  int expected = 0;
  if (!state.compare_exchange_strong(expected, 1)) return nullptr;  // another thread fills it
  runtime.parallel =
      reinterpret_cast<decltype(runtime.parallel)>(dlsym(library, "GOMP_parallel"));
  runtime.in_parallel =
      reinterpret_cast<decltype(runtime.in_parallel)>(dlsym(library, "omp_in_parallel"));
  runtime.max_threads =
      reinterpret_cast<decltype(runtime.max_threads)>(dlsym(library, "omp_get_max_threads"));
  const bool usable = runtime.parallel != nullptr && runtime.in_parallel != nullptr &&
                      runtime.max_threads != nullptr;
  state.store(usable ? 2 : 3, std::memory_order_release);
  return usable ? &runtime : nullptr;
}

}  // namespace oarlock
