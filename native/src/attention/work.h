// Memory and order of the work of a call on the CPU.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "attention/arguments.h"
#include "attention/kernels.h"

namespace oarlock::attention {

constexpr std::int64_t tiles(std::int64_t count, std::int64_t size) {
  return (count + size - 1) / size;
}

// Aligned memory that nobody has written.
class Floats {
 public:
  explicit Floats(std::int64_t count)
      : data_(static_cast<float*>(::operator new(sizeof(float) * count, kAlignment))) {}
  float* data() const { return data_.get(); }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Delete {
    void operator()(float* p) const { ::operator delete(p, kAlignment); }
  };
  std::unique_ptr<float, Delete> data_;
};

// Memory for each thread of a region.
class Workspaces {
 public:
  Workspaces(std::int32_t threads, std::int64_t floats) : busy_(threads) {
    for (std::int32_t i = 0; i < threads; ++i) memory_.emplace_back(floats);
  }

  // Calls body(float*) with memory that no other thread uses meanwhile.
  template <typename Body>
  void with(const Body& body) {
    std::size_t i = 0;
    while (busy_[i].exchange(true, std::memory_order_acquire)) i = (i + 1) % busy_.size();
    body(memory_[i].data());
    busy_[i].store(false, std::memory_order_release);
  }

 private:
  std::vector<Floats> memory_;
  std::vector<std::atomic<bool>> busy_;
};

// One head of the keys, and the heads of the queries that it serves.
struct Head {
  std::int64_t batch, kv_head;
};

// Calls body(first, count) for all heads of keys of all batches, so many at a time that packed copies,
// `floats` for each, stay small but all threads find work.
template <typename Body>
void in_waves(const Shape& shape, std::int64_t floats, std::int32_t threads, const Body& body) {
  constexpr std::int64_t kMost = std::int64_t{1} << 24;  // 64 MiB
  const std::int64_t heads = shape.batch * shape.kv_heads;
  const std::int64_t fit = kMost / std::max<std::int64_t>(floats, 1);
  const std::int64_t wave = std::min(heads, std::max<std::int64_t>(fit, threads));
  for (std::int64_t first = 0; first < heads; first += wave)
    body(first, std::min(wave, heads - first));
}

inline Head head_of(const Shape& shape, std::int64_t index) {
  return {index / shape.kv_heads, index % shape.kv_heads};
}

// Rows of one head from row `first` on, in a tensor [batch, sequence, heads, dim].
inline Rows rows_of(const oarlock_tensors& list, std::int64_t batch, std::int64_t head,
                    std::int64_t first) {
  const oarlock_tensor& item = list.items[0];
  const std::int64_t stride = item.shape[2] * item.shape[3];
  const std::int64_t begin = (batch * item.shape[1] + first) * stride + head * item.shape[3];
  return {static_cast<char*>(item.data) + begin * item_size(item.dtype), stride};
}

inline Storage storage_of(const oarlock_tensors& list) {
  return list.items[0].dtype == kFloat32 ? kStoreF32 : kStoreBf16;
}

// Below this many products of numbers a second thread is not worth waking.
inline std::int32_t team_for(const Shape& s, std::int32_t threads) {
  const double products = 1.0 * s.batch * s.heads * s.rows * s.keys * s.dim;
  return products < 1e6 ? 1 : threads;
}

}  // namespace oarlock::attention
