// Entry points of the optimisers' kernels for tensors on a GPU: the same names, arguments and, for
// AdamW, the same bits as on the CPU. `threads` is not used.

#include "core/device.cuh"
#include "core/error.h"
#include "core/memory.cuh"
#include "core/multi_tensor.cuh"
#include "optim/arguments.h"
#include "optim/rounding.h"
#include "optim/rules.h"

namespace oarlock::cuda {
namespace {

using namespace oarlock::optim;

// Keys of the rounding of the tensors of a batch.
struct Keys {
  std::uint32_t key0[kTensors], key1[kTensors];
};

template <typename P, typename G, bool stochastic>
__global__ void __launch_bounds__(kThreads)
    adamw(const __grid_constant__ Batch<4> batch, const AdamwScalars s,
          const __grid_constant__ Keys keys) {
  std::int64_t begin;
  const int tensor = tensor_of(batch, &begin);
  P* const p = static_cast<P*>(batch.data[0][tensor]);
  const G* const g = static_cast<const G*>(batch.data[1][tensor]);
  float* const m = static_cast<float*>(batch.data[2][tensor]);
  float* const v = static_cast<float*>(batch.data[3][tensor]);
  const std::int64_t end = min(begin + kChunk, batch.count[tensor]);
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    float mi = m[i], vi = v[i];
    const float value = path::adamw_rule(path::load(p, i), path::load(g, i), mi, vi, s);
    m[i] = mi;
    v[i] = vi;
    if constexpr (sizeof(P) == sizeof(float)) {
      p[i] = value;
    } else if constexpr (stochastic) {
      const auto index = static_cast<std::uint32_t>(i);
      const std::uint32_t random =
          path::random16(index, keys.key0[tensor], keys.key1[tensor]);
      p[i] = P(path::round_randomly(value, random));
    } else {
      p[i] = P(path::round_nearest(value));
    }
  }
}

template <typename P, typename G>
void launch_adamw(const Batch<4>& batch, std::int32_t blocks, const AdamwScalars& s,
                  const oarlock_rounding& options) {
  Keys keys{};
  for (int i = 0; i < batch.size; ++i) {
    const Rounding rounding = optim::rounding(options, {batch.index[i], 0, 0});
    keys.key0[i] = rounding.key0;
    keys.key1[i] = rounding.key1;
  }
  if (options.stochastic)
    adamw<P, G, true><<<blocks, kThreads, 0, stream()>>>(batch, s, keys);
  else
    adamw<P, G, false><<<blocks, kThreads, 0, stream()>>>(batch, s, keys);
  check(cudaGetLastError(), "adamw");
}

// The sum of squares of each block's elements.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    squares(const __grid_constant__ Batch<1> batch, double* sums) {
  std::int64_t begin;
  const int tensor = tensor_of(batch, &begin);
  const T* const x = static_cast<const T*>(batch.data[0][tensor]);
  const std::int64_t end = min(begin + kChunk, batch.count[tensor]);
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const double value = path::load(x, i);
    sum += value * value;
  }
  __shared__ double parts[kThreads];
  parts[threadIdx.x] = sum;
  for (int width = kThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) parts[threadIdx.x] += parts[threadIdx.x + width];
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = parts[0];
}

}  // namespace
}  // namespace oarlock::cuda

using namespace oarlock;
using namespace oarlock::optim;

OARLOCK_API std::int32_t oarlock_optim_adamw(const oarlock_tensors* params,
                                             const oarlock_tensors* grads,
                                             const oarlock_tensors* m, const oarlock_tensors* v,
                                             const oarlock_adamw_options* o, std::int32_t) {
  return guarded([&] {
    const cuda::UseDevice use(*params);
    check_step(*params, *grads, {m, v}, use.device());
    check_overlap({{*params, Access::write}, {*grads, Access::read}, {*m, Access::write},
                   {*v, Access::write}});
    for (const oarlock_tensors* list : {params, grads, m, v})
      for (std::int64_t i = 0; o->rounding.stochastic && i < list->count; ++i)
        if (list->items[i].count >> 32)
          throw BadArgument(item_name(*list, i) + " has 2^32 elements or more; on a GPU "
                            "rounding_seed needs fewer, so pass None");
    const AdamwScalars s = scalars(*o);
    const auto run = [&](Types types, auto launch) {
      cuda::for_batches<4>(
          {params, grads, m, v},
          [&](std::int64_t i) { return types_of(*params, *grads, i) == types; },
          [&](const cuda::Batch<4>& batch, std::int32_t blocks, std::int64_t) {
            launch(batch, blocks, s, o->rounding);
          });
    };
    run(kF32F32, cuda::launch_adamw<float, float>);
    run(kBf16F32, cuda::launch_adamw<path::bfloat16, float>);
    run(kBf16Bf16, cuda::launch_adamw<path::bfloat16, path::bfloat16>);
  });
}

// Waits for the sum. Added in the order of the blocks, so equal calls give equal bits.
OARLOCK_API std::int32_t oarlock_optim_squared_norm(const oarlock_tensors* tensors, double* sum,
                                                    std::int32_t) {
  return guarded([&] {
    const cuda::UseDevice use(*tensors);
    check_dtype(*tensors, {kFloat32, kBfloat16});
    check_memory(*tensors, Access::read, use.device());
    std::int64_t blocks = 0;
    for (std::int64_t i = 0; i < tensors->count; ++i)
      blocks += (tensors->items[i].count + cuda::kChunk - 1) / cuda::kChunk;
    *sum = 0;
    if (blocks == 0) return;
    const cuda::Memory scratch(sizeof(double) * blocks);
    double* next = scratch.as<double>();
    const auto run = [&](std::int32_t dtype, auto kernel) {
      next += cuda::for_batches<1>(
          {tensors}, [&](std::int64_t i) { return tensors->items[i].dtype == dtype; },
          [&](const cuda::Batch<1>& batch, std::int32_t count, std::int64_t first) {
            kernel<<<count, cuda::kThreads, 0, cuda::stream()>>>(batch, next + first);
            cuda::check(cudaGetLastError(), "squared_norm");
          });
    };
    run(kFloat32, cuda::squares<float>);
    run(kBfloat16, cuda::squares<path::bfloat16>);
    std::vector<double> parts(blocks);
    cuda::check(cudaMemcpyAsync(parts.data(), scratch.as<double>(), sizeof(double) * blocks,
                                cudaMemcpyDeviceToHost, cuda::stream()),
                "cudaMemcpyAsync");
    cuda::check(cudaStreamSynchronize(cuda::stream()), "cudaStreamSynchronize");
    for (double part : parts) *sum += part;
  });
}
