#include "core/device.cuh"

#include "core/error.h"

namespace oarlock::cuda {
namespace {

thread_local cudaStream_t current_stream = nullptr;

}  // namespace

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

cudaStream_t stream() { return current_stream; }

UseDevice::UseDevice(const oarlock_tensors& list) {
  if (list.count > 0) device_ = {list.items[0].device, list.items[0].device_id};
  if (device_.type != OARLOCK_CUDA)
    throw BadArgument(std::string(list.name) + "[0] is not on a GPU");
  check(cudaGetDevice(&before_), "cudaGetDevice");
  check(cudaSetDevice(device_.id), "cudaSetDevice");
}

UseDevice::~UseDevice() { cudaSetDevice(before_); }

}  // namespace oarlock::cuda

using namespace oarlock;

// Number of GPUs; on failure the status, with the driver's reason as the last error.
OARLOCK_API std::int32_t oarlock_cuda_devices(std::int32_t* count) {
  return guarded([&] {
    int found = 0;
    cuda::check(cudaGetDeviceCount(&found), "cudaGetDeviceCount");
    *count = found;
  });
}

// Kernels called from this thread run on this stream; null is the default one.
OARLOCK_API std::int32_t oarlock_cuda_set_stream(void* stream) {
  cuda::current_stream = static_cast<cudaStream_t>(stream);
  return OARLOCK_OK;
}
