// Memory on the GPU that outlives a call, and copies to and from the host.
#pragma once

#include <cstdint>
#include <utility>

#include "core/device.cuh"

namespace oarlock::cuda::atoms {

template <typename T>
class Array {
 public:
  Array() = default;
  explicit Array(std::int64_t count) { reserve(count); }
  Array(Array&& other) noexcept { swap(other); }
  Array& operator=(Array&& other) noexcept { return swap(other), *this; }
  ~Array() {
    if (data_ != nullptr) cudaFreeAsync(data_, stream());
  }

  // Grows, and what it held is lost.
  T* reserve(std::int64_t count) {
    if (count <= count_) return data_;
    if (data_ != nullptr) cudaFreeAsync(std::exchange(data_, nullptr), stream());
    count_ = 0;
    void* found = nullptr;
    if (cudaMallocAsync(&found, count * sizeof(T), stream()) != cudaSuccess) {
      cudaGetLastError();  // so that later calls do not report it
      throw std::bad_alloc();
    }
    data_ = static_cast<T*>(found);
    count_ = count;
    return data_;
  }
  T* upload(const T* from, std::int64_t count) {
    reserve(count);
    if (count > 0)
      check(cudaMemcpyAsync(data_, from, count * sizeof(T), cudaMemcpyHostToDevice, stream()),
            "upload");
    return data_;
  }
  void download(T* to, std::int64_t count) const {
    if (count > 0)
      check(cudaMemcpyAsync(to, data_, count * sizeof(T), cudaMemcpyDeviceToHost, stream()),
            "download");
  }
  void fill_bytes(int byte, std::int64_t count) {
    if (count > 0) check(cudaMemsetAsync(data_, byte, count * sizeof(T), stream()), "fill");
  }
  T* data() const { return data_; }

 private:
  void swap(Array& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }
  T* data_ = nullptr;
  std::int64_t count_ = 0;
};

}  // namespace oarlock::cuda::atoms
