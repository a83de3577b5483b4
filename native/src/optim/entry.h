// What the entry points of the CPU share: addresses in chunks, and work over chunks.
#pragma once

#include "core/dispatch.h"
#include "core/parallel.h"
#include "core/tensors.h"
#include "optim/plan.h"

namespace oarlock::optim {

template <typename T = void>
T* at(const oarlock_tensors& list, const Chunk& chunk) {
  const oarlock_tensor& item = list.items[chunk.tensor];
  return reinterpret_cast<T*>(static_cast<char*>(item.data) +
                              chunk.begin * item_size(item.dtype));
}

// Index in tables by the type of one operand.
inline int type_of(const oarlock_tensor& item) { return item.dtype == kFloat32 ? 0 : 1; }

// Calls body(chunk, index) for all chunks of the list's tensors.
template <typename Body>
void for_chunks(const Plan& plan, std::int32_t threads, const Body& body) {
  parallel_for(plan.size(), plan.threads(threads), [&](std::int64_t i) { body(plan[i], i); });
}

// Sum over the chunks of a tensor, in their order, of every `stride`-th of `parts`.
inline double tensor_sum(const Plan& plan, std::int64_t tensor, const double* parts, int stride) {
  double sum = 0;
  for (std::int64_t i = plan.first(tensor); i < plan.first(tensor + 1); ++i)
    sum += parts[stride * i];
  return sum;
}

}  // namespace oarlock::optim
