// Memory for what kernels pack: aligned to lines of the cache, and not cleared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace oarlock {

template <typename T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::int64_t count) { allocate(count); }

  void allocate(std::int64_t count) {
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    memory_.reset(static_cast<T*>(::operator new(bytes, kLine)));
    count_ = count;
  }
  T* data() const { return memory_.get(); }
  std::int64_t size() const { return count_; }
  bool empty() const { return count_ == 0; }
  T& operator[](std::int64_t i) const { return memory_.get()[i]; }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(T* p) const { ::operator delete(p, kLine); }
  };
  std::unique_ptr<T, Free> memory_;
  std::int64_t count_ = 0;
};

}  // namespace oarlock
