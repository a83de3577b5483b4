// Memory of the stream for one call.
#pragma once

#include <cstddef>

#include "core/device.cuh"

namespace oarlock::cuda {

class Memory {
 public:
  explicit Memory(std::size_t bytes) {
    if (bytes > 0) check(cudaMallocAsync(&data_, bytes, stream()), "cudaMallocAsync");
  }
  ~Memory() {
    if (data_ != nullptr) cudaFreeAsync(data_, stream());
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

}  // namespace oarlock::cuda
