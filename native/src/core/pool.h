// A pool of threads that sleep between regions.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>

namespace oarlock {

class Pool {
 public:
  // Calls member(context) on the caller and on up to `threads` - 1 workers. One region at a time.
  // A worker that wakes after the work is done is not waited for.
  void run(std::int32_t threads, void (*member)(void*), void* context);

  std::int32_t size() const { return size_.load(std::memory_order_relaxed); }

 private:
  void grow(std::int32_t workers);
  void work();

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<std::uint64_t> region_{0};  // number of the latest region
  std::atomic<std::int32_t> active_{0};   // workers inside the current region
  std::atomic<std::int32_t> size_{0};
  std::int32_t seats_ = 0;  // workers that may still join the current region
  void (*member_)(void*) = nullptr;
  void* context_ = nullptr;
};

}  // namespace oarlock
