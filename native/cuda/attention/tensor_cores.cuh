// Starting the kernels on tensor cores: for bfloat16, and heads whose rows are whole pieces of 16 bytes, up to 128
// numbers.
#pragma once

#include <limits>

#include "attention/forward.cuh"
#include "attention/key_grads.cuh"
#include "core/error.h"
#include "core/launch.cuh"
#include "core/memory.cuh"

namespace oarlock::cuda::attention {

// Tiles by size of heads: what was fastest on an H100 (native/LOG.md). `bounded` masks leave less of a sequence to see,
// of which narrow tiles skip more.
template <int dim, bool bounded>
struct Tilings;
template <>
struct Tilings<64, false> {
  using Forward = Tiling<64, 2, 64, 2>;
  using QueryGrads = Tiling<64, 1, 32, 4>;
  using KeyGrads = Tiling<64, 2, 32, 2>;
  static constexpr bool kKept = false;
};
template <>
struct Tilings<64, true> {
  using Forward = Tiling<64, 1, 64, 4>;
  using QueryGrads = Tiling<64, 1, 32, 4>;
  using KeyGrads = Tiling<64, 1, 32, 3>;
  static constexpr bool kKept = true;
};
template <bool bounded>
struct Tilings<128, bounded> {
  using Forward = Tiling<128, 1, 32, 3>;
  using QueryGrads = Tiling<128, 1, 32, 2>;
  using KeyGrads = Tiling<128, 1, 32, 2>;
  static constexpr bool kKept = true;
};

// Calls body(the tilings of a call).
template <typename Body>
void with_tilings(const Call& call, const Body& body) {
  if (call.s.dim > 64)
    body(Tilings<128, true>{});
  else if (call.mask.bounded)
    body(Tilings<64, true>{});
  else
    body(Tilings<64, false>{});
}

inline bool fits(const AttentionShape& s, std::initializer_list<const oarlock_tensors*> tensors) {
  for (const oarlock_tensors* list : tensors)
    if (reinterpret_cast<std::uintptr_t>(list->items[0].data) % 16 != 0) return false;
  return s.dim % 8 == 0 && s.dim <= 128;
}

// Blocks for all tiles of `length` rows of all heads.
template <typename T>
dim3 blocks_of(std::int64_t length, std::int64_t heads, std::int64_t batch) {
  const std::int64_t blocks = (length + T::kRows - 1) / T::kRows * heads * batch;
  if (blocks > std::numeric_limits<std::int32_t>::max())
    throw BadArgument("q has too many rows and heads for one call on a GPU: " + std::to_string(blocks) +
                      " tiles; split the batch");
  return dim3(static_cast<unsigned>(blocks));
}

// The mask in a call's memory.
class MaskOnDevice {
 public:
  explicit MaskOnDevice(const Bounds& bounds)
      : groups_((bounds.keys + kMostKeys - 1) / kMostKeys * (kMostKeys / kGroup)),
        memory_(bounds.batches * bounds.heads * groups_ * kBytes) {
    mask_ = {memory_.as<Hidden>(), nullptr, bounds.batches, bounds.heads, groups_,
             bounds.numbers != nullptr};
    mask_.extremes = reinterpret_cast<Extremes*>(mask_.keys + mask_.places() * kGroup);
    if (mask_.places() > 0)
      launch("attention read_mask", read_mask,
             dim3(static_cast<unsigned>((mask_.places() + kMaskWarps - 1) / kMaskWarps)),
             kMaskWarps * kLanes, 0, bounds, mask_);
  }
  const Mask& view() const { return mask_; }

 private:
  static constexpr std::size_t kBytes = kGroup * sizeof(Hidden) + 2 * sizeof(Extremes);  // of a group
  std::int64_t groups_;
  Memory memory_;
  Mask mask_;
};

inline void run_forward(const Call& call, bfloat16* out, float* lse) {
  with_tilings(call, [&](auto tilings) {
    using T = typename decltype(tilings)::Forward;
    launch("attention forward", forward<T>, blocks_of<T>(call.s.rows, call.s.heads, call.s.batch),
           T::kThreads, ForwardMemory<T>::kBytes, call, out, lse);
  });
}

inline void run_backward(const Call& call, const bfloat16* out, const float* lse, const bfloat16* out_grad,
                         bfloat16* q_grad, bfloat16* k_grad, bfloat16* v_grad) {
  const AttentionShape& s = call.s;
  const std::int64_t padded = (s.rows + kMostKeys - 1) / kMostKeys * kMostKeys;
  const Memory rows(sizeof(RowNumbers) * s.batch * s.heads * padded);
  const Backward given{out, out_grad, lse, rows.as<RowNumbers>(), padded};
  with_tilings(call, [&](auto tilings) {
    using Q = typename decltype(tilings)::QueryGrads;
    using K = typename decltype(tilings)::KeyGrads;
    constexpr bool kKept = decltype(tilings)::kKept;
    static_assert(Q::kRows % K::kColumns == 0, "numbers of all rows of a tile are written");
    if (s.rows > 0 && s.heads > 0)
      launch("attention query_grads", query_grads<Q>, blocks_of<Q>(s.rows, s.heads, s.batch), Q::kThreads,
             QueryGradsMemory<Q>::kBytes, call, given, q_grad);
    if (s.keys > 0 && s.kv_heads > 0)
      launch("attention key_grads", key_grads<K, kKept>, blocks_of<K>(s.keys, s.kv_heads, s.batch),
             K::kThreads, KeyGradsMemory<K>::kBytes, call, given, k_grad, v_grad);
  });
}

}  // namespace oarlock::cuda::attention
