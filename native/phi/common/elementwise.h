// Functions applied element by element: widen, compute, round once.
//
// A function is a struct with `static float of(float…)`. Results may lie in the memory of an
// operand, since each element is read before it is written.
#pragma once

#include <cstdint>

#include "common/bf16.h"
#include "common/parallel.h"

namespace oarlock {

constexpr std::int64_t kElementGrain = 1 << 14;  // elements worth waking a thread for

template <typename Function, typename... Operands>
OARLOCK_CLONES void apply_range(Bf16* out, std::int64_t begin, std::int64_t end,
                                const Operands*... operands) {
  for (std::int64_t i = begin; i < end; ++i) out[i] = narrow(Function::of(widen(operands[i])...));
}

// out[i] = Function::of(operands[i]...)
template <typename Function, typename... Operands>
void apply(std::int64_t count, Bf16* out, const Operands*... operands) {
  parallel_ranges(count, kElementGrain, [&](std::int64_t begin, std::int64_t end) {
    apply_range<Function>(out, begin, end, operands...);
  });
}

}  // namespace oarlock
