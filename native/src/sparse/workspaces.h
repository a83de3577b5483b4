// Scratch memory of tasks, allocated before they start, since a task must not throw.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>

namespace oarlock::sparse {

constexpr std::align_val_t kLine{64};

struct Release {
  void operator()(float* memory) const { ::operator delete(memory, kLine); }
};

using Memory = std::unique_ptr<float[], Release>;

inline Memory allocate(std::int64_t floats) {
  const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(floats > 0 ? floats : 1);
  return Memory(static_cast<float*>(::operator new(bytes, kLine)));
}

// One piece of scratch for each task that runs at a time.
class Workspaces {
 public:
  Workspaces(std::int64_t count, std::int64_t floats)
      : count_(count), pitch_((floats + 15) / 16 * 16 + 16),
        memory_(allocate(count * pitch_)), taken_(new std::atomic<bool>[count]) {
    for (std::int64_t i = 0; i < count; ++i) taken_[i] = false;
  }

  class Lease {
   public:
    explicit Lease(Workspaces& from) : from_(from) {
      for (;; ++index_) {
        if (index_ == from.count_) index_ = 0;
        if (!from.taken_[index_].exchange(true, std::memory_order_acquire)) return;
      }
    }
    ~Lease() { from_.taken_[index_].store(false, std::memory_order_release); }
    Lease(const Lease&) = delete;
    float* data() const { return from_.memory_.get() + index_ * from_.pitch_; }

   private:
    Workspaces& from_;
    std::int64_t index_ = 0;
  };

 private:
  std::int64_t count_, pitch_;
  Memory memory_;
  std::unique_ptr<std::atomic<bool>[]> taken_;
};

}  // namespace oarlock::sparse
