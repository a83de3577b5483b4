// In place of CUDA's header: the words that the kernels of native/cuda use, for a CPU's compiler.
//
// A block's threads are fibers that take turns, so barriers, shuffles and what a warp does together
// work as on a GPU, and one that not all threads reach is found. Nothing is as fast, and nothing here
// tells how fast a GPU is.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
#define __shared__ static  // blocks run one after the other

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }

namespace cuda_on_cpu {

struct Index { unsigned x, y, z; };
extern Index thread_index, block_index, grid_size;

// Runs the blocks of a grid.
void run(dim3 blocks, unsigned threads, std::size_t shared, const std::function<void()>& kernel);
char* dynamic_shared();
int current_thread();
void barrier();
bool barrier_or(bool x);  // whether any thread has one
// Everything that 32 lanes deposited, after the last of them called `combine(deposits, results)`;
// returns this lane's result.
const void* collective(const void* deposit, std::size_t bytes, std::size_t result_bytes,
                       const std::function<void(const char*, char*)>& combine);
[[noreturn]] void fail(const char* what);
int version();  // that kernels are said to be compiled for, 10 times the compute capability

template <typename Out, typename In, typename Combine>
Out together(const In& deposit, const Combine& combine) {
  Out out;
  const void* const found =
      collective(&deposit, sizeof(In), sizeof(Out), [&](const char* all, char* results) {
        In in[32];
        Out outs[32];
        std::memcpy(in, all, sizeof in);
        combine(in, outs);
        std::memcpy(results, outs, sizeof outs);
      });
  std::memcpy(&out, found, sizeof out);
  return out;
}

}  // namespace cuda_on_cpu

#define threadIdx cuda_on_cpu::thread_index
#define blockIdx cuda_on_cpu::block_index
#define gridDim cuda_on_cpu::grid_size

using std::fma;
using std::max;
using std::min;

inline void __syncthreads() { cuda_on_cpu::barrier(); }
inline int __syncthreads_or(int x) { return cuda_on_cpu::barrier_or(x != 0); }
inline void __syncwarp() {
  cuda_on_cpu::together<int>(0, [](const int (&)[32], int (&out)[32]) { out[0] = 0; });
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T x, int bits) {
  if (mask != 0xffffffffu) cuda_on_cpu::fail("a shuffle of a part of a warp");
  return cuda_on_cpu::together<T>(x, [&](const T (&in)[32], T (&out)[32]) {
    for (int i = 0; i < 32; ++i) out[i] = in[i ^ bits];
  });
}

inline unsigned __ballot_sync(unsigned mask, bool x) {
  if (mask != 0xffffffffu) cuda_on_cpu::fail("a ballot of a part of a warp");
  return cuda_on_cpu::together<unsigned>(x, [](const bool (&in)[32], unsigned (&out)[32]) {
    unsigned all = 0;
    for (int i = 0; i < 32; ++i) all |= unsigned{in[i]} << i;
    for (unsigned& one : out) one = all;
  });
}
inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }

inline int atomicAdd(int* p, int x) {
  const int before = *p;
  *p += x;
  return before;
}
inline unsigned long long atomicMin(unsigned long long* p, unsigned long long x) {
  const unsigned long long before = *p;
  *p = std::min(before, x);
  return before;
}
inline std::uint32_t atomicMax(std::uint32_t* p, std::uint32_t x) {
  const std::uint32_t before = *p;
  *p = std::max(before, x);
  return before;
}

inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i)
    c += static_cast<std::int8_t>(a >> 8 * i) * static_cast<std::int8_t>(b >> 8 * i);
  return c;
}

inline std::uint32_t __byte_perm(std::uint32_t x, std::uint32_t y, std::uint32_t selector) {
  const std::uint64_t both = std::uint64_t{y} << 32 | x;
  std::uint32_t out = 0;
  for (int i = 0; i < 4; ++i)
    out |= static_cast<std::uint32_t>(both >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return out;
}

using cudaError_t = int;
using cudaStream_t = void*;
constexpr cudaError_t cudaSuccess = 0;
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount };
struct cudaFuncAttributes { int binaryVersion; };

inline const char* cudaGetErrorString(cudaError_t) { return "an error"; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  return *value = 4, cudaSuccess;
}
template <typename Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, Kernel) {
  return found->binaryVersion = cuda_on_cpu::version(), cudaSuccess;
}
// Filled with NaN, so that what is read before it is written shows.
inline cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t) {
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*memory, 0xff, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
  return std::free(memory), cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t) {
  return std::memset(memory, value, bytes), cudaSuccess;
}
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                                   cudaStream_t) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
using cudaEvent_t = int;
inline cudaError_t cudaEventCreate(cudaEvent_t* event) { return *event = 0, cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t, cudaEvent_t) {
  return *ms = 0, cudaSuccess;
}
