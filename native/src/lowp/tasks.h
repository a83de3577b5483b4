// parallel_for whose tasks may run out of memory.
#pragma once

#include <atomic>
#include <new>

#include "core/parallel.h"
#include "lowp/scales.h"  // divided_up

namespace oarlock::lowp {

template <typename Body>
void for_tasks(std::int64_t tasks, std::int32_t threads, const Body& body) {
  std::atomic<bool> failed{false};
  parallel_for(tasks, threads, [&](std::int64_t task) {
    try {
      if (!failed.load(std::memory_order_relaxed)) body(task);
    } catch (const std::bad_alloc&) {
      failed.store(true, std::memory_order_relaxed);
    }
  });
  if (failed) throw std::bad_alloc();
}

}  // namespace oarlock::lowp
