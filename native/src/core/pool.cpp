#include "core/pool.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <system_error>
#include <thread>

namespace oarlock {
namespace {

// Long enough to catch the next of two calls in a row, short enough to leave the core to others.
constexpr auto kSpin = std::chrono::microseconds(30);

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

template <typename Condition>
bool spin_until(const Condition& condition) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (condition()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

void Pool::run(std::int32_t threads, void (*member)(void*), void* context) {
  grow(threads - 1);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    member_ = member;
    context_ = context;
    seats_ = threads - 1;
    region_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  member(context);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    seats_ = 0;  // nobody joins from here on
  }
  if (spin_until([this] { return active_.load(std::memory_order_acquire) == 0; })) return;
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return active_.load(std::memory_order_acquire) == 0; });
}

void Pool::grow(std::int32_t workers) {
  if (size() >= workers) return;
  // Signals are for the program's own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    while (size() < workers) {
      std::thread([this] { work(); }).detach();
      size_.fetch_add(1, std::memory_order_relaxed);
    }
  } catch (const std::system_error&) {
    // No more threads to be had: the region runs on those there are, with the same result.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Pool::work() {
  std::uint64_t seen = 0;
  for (;;) {
    spin_until([&] { return region_.load(std::memory_order_acquire) != seen; });
    std::unique_lock<std::mutex> lock(mutex_);
    wake_.wait(lock, [&] { return region_.load(std::memory_order_relaxed) != seen; });
    seen = region_.load(std::memory_order_relaxed);
    if (seats_ == 0) continue;
    --seats_;
    active_.fetch_add(1, std::memory_order_relaxed);
    const auto member = member_;
    void* const context = context_;
    lock.unlock();
    member(context);
    lock.lock();
    if (active_.fetch_sub(1, std::memory_order_release) == 1) done_.notify_one();
  }
}

}  // namespace oarlock
