// Blocks of threads as fibers.
#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_on_cpu {

Index thread_index, block_index, grid_size;

namespace {

constexpr std::size_t kStack = 256 << 10;

// What some threads wait for until all of them have come.
struct Meeting {
  unsigned arrived = 0;
  unsigned long generation = 0;
};

// Runs one thread of a block after the other. Once it has started, it is switched to by longjmp,
// which unlike swapcontext asks nothing of the system.
struct Fiber {
  ucontext_t context;
  jmp_buf place;
  bool started = false;
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool done = false;
  const Meeting* waits_for = nullptr;
  unsigned long until = 0;
};

struct Warp {
  Meeting meeting;
  std::vector<char> deposits[2], results[2];  // by turns: some lanes are one meeting ahead
};

jmp_buf scheduler;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
Meeting block;
unsigned alive;
int current;
bool backwards = false;
int compiled_for = 90;
std::vector<char> memory;
const std::function<void()>* running;
std::string failure;

void wait_for(Meeting& meeting) {
  Fiber& self = fibers[current];
  self.waits_for = &meeting;
  self.until = meeting.generation + 1;
  if (_setjmp(self.place) == 0) _longjmp(scheduler, 1);
}

void arrive(Meeting& meeting, unsigned all) {
  if (++meeting.arrived < all) return wait_for(meeting);
  meeting.arrived = 0;
  ++meeting.generation;
}

void thread_body() {
  for (;;) {
    try {
      (*running)();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    Fiber& self = fibers[current];
    self.done = true;
    if (--alive > 0 && block.arrived == alive) {
      block.arrived = 0;
      ++block.generation;
    }
    if (_setjmp(self.place) == 0) _longjmp(scheduler, 1);
  }
}

void resume(Fiber& fiber) {
  if (_setjmp(scheduler) != 0) return;
  if (fiber.started) _longjmp(fiber.place, 1);
  fiber.started = true;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, thread_body, 0);
  setcontext(&fiber.context);
}

// Lets each of some threads go on that can; whether there was one.
bool run_warp(unsigned begin, unsigned end) {
  bool moved = false;
  for (unsigned turn = begin; turn < end; ++turn) {
    current = static_cast<int>(backwards ? end - 1 - (turn - begin) : turn);
    Fiber& fiber = fibers[current];
    if (fiber.done) continue;
    if (fiber.waits_for != nullptr && fiber.waits_for->generation < fiber.until) continue;
    fiber.waits_for = nullptr;
    moved = true;
    thread_index = {static_cast<unsigned>(current), 0, 0};
    resume(fiber);
    if (!failure.empty()) throw std::runtime_error(failure);
  }
  return moved;
}

void run_block(unsigned threads) {
  alive = threads;
  block = {};
  warps.assign((threads + 31) / 32, {});
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = fibers[i];
    fiber.done = false;
    fiber.waits_for = nullptr;
  }
  // Each warp goes as far as it can before the next begins: what only holds while all go along at
  // the same speed does not hold here.
  const unsigned all = static_cast<unsigned>(warps.size());
  while (alive > 0) {
    bool moved = false;
    for (unsigned turn = 0; turn < all; ++turn) {
      const unsigned warp = backwards ? all - 1 - turn : turn;
      while (run_warp(warp * 32, std::min(warp * 32 + 32, threads))) moved = true;
    }
    if (!moved) throw std::runtime_error("threads wait for others that never come");
  }
}

}  // namespace

void fail(const char* what) { throw std::runtime_error(what); }
int version() { return compiled_for; }
char* dynamic_shared() {
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  return memory.data() + (128 - address % 128) % 128;
}
int current_thread() { return current; }
void barrier() { arrive(block, alive); }
bool barrier_or(bool x) {
  static bool any;
  any |= x;
  barrier();
  const bool found = any;
  barrier();  // all have read it
  any = false;
  barrier();
  return found;
}

const void* collective(const void* deposit, std::size_t bytes, std::size_t result_bytes,
                       const std::function<void(const char*, char*)>& combine) {
  Warp& warp = warps[current / 32];
  const int lane = current % 32, turn = static_cast<int>(warp.meeting.generation % 2);
  auto& deposits = warp.deposits[turn];
  auto& results = warp.results[turn];
  if (warp.meeting.arrived == 0) deposits.resize(32 * bytes), results.resize(32 * result_bytes);
  if (deposits.size() != 32 * bytes) fail("lanes of a warp do different things together");
  std::memcpy(deposits.data() + lane * bytes, deposit, bytes);
  if (warp.meeting.arrived == 31) combine(deposits.data(), results.data());
  arrive(warp.meeting, 32);
  return warp.results[turn].data() + lane * result_bytes;
}

void run(dim3 blocks, unsigned threads, std::size_t shared, const std::function<void()>& kernel) {
  if (blocks.x == 0 || blocks.y == 0 || blocks.y > 65535 || blocks.z == 0 || blocks.z > 65535)
    fail("a grid that no GPU takes");
  if (shared > 99 << 10) fail("more shared memory than some GPUs have");
  failure.clear();
  if (fibers.size() < threads) fibers.resize(threads);
  memory.assign(shared + 128, static_cast<char>(0xff));
  running = &kernel;
  grid_size = {blocks.x, blocks.y, blocks.z};
  for (unsigned z = 0; z < blocks.z; ++z)
    for (unsigned y = 0; y < blocks.y; ++y)
      for (unsigned x = 0; x < blocks.x; ++x) {
        block_index = {x, y, z};
        try {
          run_block(threads);
        } catch (...) {
          fibers.clear();  // some of them are in the middle of the kernel
          throw;
        }
      }
}

}  // namespace cuda_on_cpu

// Which threads go first, and for what kernels are said to be compiled.
extern "C" __attribute__((visibility("default"))) void cuda_on_cpu_set(int backwards, int version) {
  cuda_on_cpu::backwards = backwards != 0;
  cuda_on_cpu::compiled_for = version;
}
