#include "core/parallel.h"

#include <pthread.h>

#include <new>

#include "core/openmp.h"
#include "core/pool.h"

namespace oarlock {
namespace {

std::atomic<bool> team_taken{false};
thread_local bool in_region = false;

// Never destroyed: workers may outlive the statics at exit.
std::atomic<Pool*> pool{nullptr};

// In a child process there are no workers; start afresh.
void after_fork() {
  pool.store(nullptr);
  team_taken.store(false);
}

Pool& own_pool() {  // only while team_taken is ours
  if (pool.load() == nullptr) pool.store(new Pool);
  return *pool.load();
}

struct Member {
  void (*function)(void*);
  void* context;
};

void enter(void* argument) {
  const Member& member = *static_cast<Member*>(argument);
  const bool before = in_region;
  in_region = true;
  member.function(member.context);
  in_region = before;
}

}  // namespace

void run_team(std::int32_t threads, void (*function)(void*), void* context) {
  static const int registered = pthread_atfork(nullptr, nullptr, after_fork);
  (void)registered;
  Member member{function, context};
  if (threads > kMaxThreads) threads = kMaxThreads;
  const OpenMp* openmp = paddle_openmp();
  const bool nested = in_region || (openmp != nullptr && openmp->in_parallel() != 0);
  if (threads <= 1 || nested || team_taken.exchange(true, std::memory_order_acquire)) {
    enter(&member);
    return;
  }
  if (openmp != nullptr)
    openmp->parallel(enter, &member, static_cast<unsigned>(threads), 0);
  else
    own_pool().run(threads, enter, &member);
  team_taken.store(false, std::memory_order_release);
}

const char* thread_runtime() { return paddle_openmp() != nullptr ? "libiomp5" : "pool"; }

std::int32_t team_size() {
  const OpenMp* openmp = paddle_openmp();
  return openmp == nullptr ? 0 : openmp->max_threads();
}

std::int32_t pool_size() {
  const Pool* started = pool.load();
  return started == nullptr ? 0 : started->size();
}

}  // namespace oarlock
