// What the processor can do, and which code path to take.
#pragma once

#include <cstdint>

namespace oarlock {

enum class Path : std::int32_t { portable = 0, avx2 = 1, avx512 = 2, neon = 3 };
constexpr std::int32_t kPaths = 4;

struct CpuFeatures {
  bool avx2_fma = false;     // AVX2, FMA and F16C, enabled by the operating system
  bool avx512 = false;       // F, BW, DQ, VL and CD, enabled by the operating system
  bool avx512_bf16 = false;
  bool avx512_vnni = false;
  bool neon = false;
};

const CpuFeatures& cpu_features();

const char* path_name(Path path);
bool path_built(Path path);      // this library was compiled with it
bool path_available(Path path);  // ... and this processor can run it
Path best_path();

// The path of kernels called from this thread.
Path active_path();
void force_path(Path path);  // for this thread, until unforce_path; throws BadArgument
void unforce_path();
bool path_forced();

}  // namespace oarlock
