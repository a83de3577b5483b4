#include "core/cpu.h"

#include <string>

#include "core/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace oarlock {
namespace {

#if defined(__x86_64__)

// Which register states the operating system saves (XCR0).
std::uint64_t saved_states() {
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

bool bit(std::uint32_t word, int position) { return word >> position & 1; }

CpuFeatures detect() {
  CpuFeatures found;
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !bit(ecx, 27)) return found;  // no XGETBV
  const bool avx = bit(ecx, 28), fma = bit(ecx, 12), f16c = bit(ecx, 29);
  const std::uint64_t states = saved_states();
  const bool ymm = (states & 0x6) == 0x6, zmm = (states & 0xe6) == 0xe6;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return found;
  const std::uint32_t subleaves = eax;
  found.avx2_fma = ymm && avx && fma && f16c && bit(ebx, 5);
  found.avx512 = found.avx2_fma && zmm && bit(ebx, 16) && bit(ebx, 17) && bit(ebx, 28) &&
                 bit(ebx, 30) && bit(ebx, 31);  // F, DQ, CD, BW, VL
  found.avx512_vnni = found.avx512 && bit(ecx, 11);
  if (subleaves >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx))
    found.avx512_bf16 = found.avx512 && bit(eax, 5);
  return found;
}

#else

CpuFeatures detect() {
  CpuFeatures found;
#if defined(__aarch64__)
  found.neon = true;  // part of the base architecture
#endif
  return found;
}

#endif

thread_local std::int32_t forced = -1;

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures found = detect();
  return found;
}

const char* path_name(Path path) {
  switch (path) {
    case Path::portable: return "portable";
    case Path::avx2: return "avx2";
    case Path::avx512: return "avx512";
    case Path::neon: return "neon";
  }
  return "unknown";
}

bool path_built(Path path) {
  switch (path) {
    case Path::portable: return true;
#if defined(__x86_64__)
    case Path::avx2:
    case Path::avx512: return true;
#elif defined(__aarch64__)
    case Path::neon: return true;
#endif
    default: return false;
  }
}

bool path_available(Path path) {
  const CpuFeatures& cpu = cpu_features();
  switch (path) {
    case Path::portable: return true;
    case Path::avx2: return path_built(path) && cpu.avx2_fma;
    case Path::avx512: return path_built(path) && cpu.avx512;
    case Path::neon: return path_built(path) && cpu.neon;
  }
  return false;
}

Path best_path() {
  static const Path best = [] {
    for (Path path : {Path::avx512, Path::avx2, Path::neon})
      if (path_available(path)) return path;
    return Path::portable;
  }();
  return best;
}

Path active_path() { return forced < 0 ? best_path() : static_cast<Path>(forced); }

void force_path(Path path) {
  if (!path_built(path))
    throw BadArgument(std::string("path ") + path_name(path) + " is not in this build");
  if (!path_available(path))
    throw BadArgument(std::string("path ") + path_name(path) + " cannot run on this processor");
  forced = static_cast<std::int32_t>(path);
}

void unforce_path() { forced = -1; }

bool path_forced() { return forced >= 0; }

}  // namespace oarlock
