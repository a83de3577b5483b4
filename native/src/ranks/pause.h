// A little patience before a thread sleeps.
#pragma once

namespace oarlock::ranks {

constexpr int kSpins = 400;  // about 10 to 20 microseconds

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

}  // namespace oarlock::ranks
