// Paddle's OpenMP runtime, found at run time if it is in the process.
#pragma once

#include <cstdint>

namespace oarlock {

struct OpenMp {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;  // GOMP_parallel
  int (*in_parallel)() = nullptr;
  int (*max_threads)() = nullptr;
};

// Null while libiomp5 is not loaded.
const OpenMp* paddle_openmp();

}  // namespace oarlock
