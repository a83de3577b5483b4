// Choosing the device of a call and its stream, and errors of the CUDA runtime.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "core/abi.h"
#include "core/tensors.h"

namespace oarlock::cuda {

void check(cudaError_t status, const char* what);

// The stream of kernels called from this thread; set by oarlock_cuda_set_stream.
cudaStream_t stream();

// Makes the device of the first tensor current for as long as it lives. All tensors of the call are
// then checked against `device()`.
class UseDevice {
 public:
  explicit UseDevice(const oarlock_tensors& list);
  ~UseDevice();
  UseDevice(const UseDevice&) = delete;
  UseDevice& operator=(const UseDevice&) = delete;
  Device device() const { return device_; }

 private:
  Device device_;
  int before_ = 0;
};

}  // namespace oarlock::cuda
