// One threading policy for all kernels.
//
// A region runs on the OpenMP team of Paddle (libiomp5) if that is loaded in the process, else on a
// small pool of our own that sleeps between regions. Only one region at a time gets a team: a call
// from a second thread meanwhile, or from inside a region, runs on its caller alone, so threads
// never outnumber what was asked for. Kernels give the same result for any number of threads.
#pragma once

#include <atomic>
#include <cstdint>

namespace oarlock {

constexpr std::int32_t kMaxThreads = 1024;

// Calls member(context) on up to `threads` threads at once, the caller among them.
void run_team(std::int32_t threads, void (*member)(void*), void* context);

// Calls body(task) once for every task in [0, tasks), in any order, on up to `threads` threads.
// The body must not throw.
template <typename Body>
void parallel_for(std::int64_t tasks, std::int32_t threads, const Body& body) {
  if (threads <= 1 || tasks <= 1) {
    for (std::int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  struct Shared {
    const Body& body;
    const std::int64_t tasks;
    std::atomic<std::int64_t> next{0};
  } shared{body, tasks};
  const auto member = [](void* context) {
    Shared& work = *static_cast<Shared*>(context);
    for (;;) {
      const std::int64_t task = work.next.fetch_add(1, std::memory_order_relaxed);
      if (task >= work.tasks) return;
      work.body(task);
    }
  };
  run_team(tasks < threads ? static_cast<std::int32_t>(tasks) : threads, member, &shared);
}

// Name of the runtime the next region will use: "libiomp5" or "pool".
const char* thread_runtime();

// Threads that Paddle's OpenMP uses when called from this thread; 0 while it is not loaded.
std::int32_t team_size();

// Threads that our own pool has started in this process.
std::int32_t pool_size();

}  // namespace oarlock
