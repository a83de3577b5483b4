// Loops that measure the bandwidth of memory.
#pragma once

#include <stdint.h>

namespace oarlock {

struct StreamKernels {
  void (*axpy)(float* y, const float* x, int64_t n, float a);                   // y += a x
  void (*triad)(float* z, const float* x, const float* y, int64_t n, float a);  // z = x + a y
  float (*sum)(const float* x, int64_t n);
};

}  // namespace oarlock
