// What a decoder does to rows between its products: norms and activations, into numbers, into the rounded rows that
// the next product takes, or into both.
#pragma once

#include "decoder/kernels.h"
#include "lowp/activations.h"
#include "quant/encode.cuh"

namespace oarlock::cuda::decoder {

using oarlock::decoder::Activation;
using quant::kEight;
using quant::Numbers;
using quant::Target;

constexpr int kLanes = 32, kNormThreads = 256, kNormWarps = kNormThreads / kLanes;
constexpr unsigned kWholeWarp = 0xffffffffu;

// The sum over a block, the same for all its threads, in one order.
__device__ inline float sum_of_block(float x, float* shared) {
  for (int width = 1; width < kLanes; width *= 2) x = x + __shfl_xor_sync(kWholeWarp, x, width);
  __syncthreads();
  if (threadIdx.x % kLanes == 0) shared[threadIdx.x / kLanes] = x;
  __syncthreads();
  float sum = shared[0];
  for (int warp = 1; warp < kNormWarps; ++warp) sum = sum + shared[warp];
  return sum;
}

struct Norm {
  Numbers x;             // [rows, size]
  const float* weight;   // [size]
  const float* bias;     // [size], or null
  std::int64_t rows, size;
  float epsilon;
  bool layer_norm;
  Target out;
  char* bricks;
};

// A block for each row, those up to a whole tile of bricks included.
__global__ void __launch_bounds__(kNormThreads) norm(const __grid_constant__ Norm p) {
  __shared__ float shared[kNormWarps];
  const std::int64_t row = blockIdx.x, eights = quant::eights_of(p.size);
  const bool given = row < p.rows;  // the whole block
  float mean = 0, by = 0;
  if (given) {
    float x[kEight];
    if (p.layer_norm) {
      float sum = 0;
      for (std::int64_t e = threadIdx.x; e * kEight < p.size; e += kNormThreads) {
        load_eight(p.x, row, e * kEight, p.size, x);
        for (int i = 0; i < kEight; ++i) sum = sum + x[i];
      }
      mean = sum_of_block(sum, shared) / static_cast<float>(p.size);
    }
    float squares = 0;
    for (std::int64_t e = threadIdx.x; e * kEight < p.size; e += kNormThreads) {
      load_eight(p.x, row, e * kEight, p.size, x);
      for (int i = 0; i < kEight; ++i)
        if (e * kEight + i < p.size) squares = fmaf(x[i] - mean, x[i] - mean, squares);
    }
    by = 1.0f / path::square_root(sum_of_block(squares, shared) / static_cast<float>(p.size) +
                                  p.epsilon);
  }
  // Whole warps, since lanes of a group round together.
  for (std::int64_t e = threadIdx.x; e - threadIdx.x % kLanes < eights; e += kNormThreads) {
    float x[kEight] = {};
    if (given && e < eights) {
      load_eight(p.x, row, e * kEight, p.size, x);
#pragma unroll
      for (int i = 0; i < kEight; ++i) {
        const std::int64_t at = min(e * kEight + i, p.size - 1);
        x[i] = (x[i] - mean) * by * p.weight[at];
        if (p.bias != nullptr) x[i] = x[i] + p.bias[at];
        if (e * kEight + i >= p.size) x[i] = 0;
      }
      if (p.out.data != nullptr) put_eight(p.out, row, e * kEight, p.size, x);
    }
    if (p.bricks != nullptr)
      quant::encode_eight(x, p.bricks, eights / quant::kEightsOfBlock, row, min(e, eights - 1), e < eights);
  }
}

// x times the logistic function of 2 sqrt(2 / pi) (x + 0.044715 x^3): the tanh form of GPT-2.
__device__ inline float gelu_tanh(float x) {
  const float inner = 1.5957691f * (x + 0.044715f * (x * x * x));
  const float e = path::exponential(-fabsf(inner)), below = inner < 0.0f ? e : 1.0f;
  return x * (below / (1.0f + e));
}

__device__ inline float activated(Activation activation, float x) {
  switch (activation) {
    case Activation::swiglu: return path::silu(x);
    case Activation::gelu_tanh: return gelu_tanh(x);
    case Activation::gelu: return path::gelu(x);
    case Activation::relu: return path::relu(x);
  }
  return x;
}

// A source for quant::map_rows: of [gate, up] beside each other silu(gate) up, else f(x).
struct Activated {
  Numbers x;
  Activation activation;

  __device__ void load(std::int64_t row, std::int64_t first, std::int64_t end,
                       float (&out)[kEight]) const {
    load_eight(x, row, first, end, out);
#pragma unroll
    for (int i = 0; i < kEight; ++i) out[i] = activated(activation, out[i]);
    if (activation != Activation::swiglu) return;
    float up[kEight];
    load_eight(x, row, end + first, 2 * end, up);
#pragma unroll
    for (int i = 0; i < kEight; ++i) out[i] = first + i < end ? out[i] * up[i] : 0.0f;
  }
};

}  // namespace oarlock::cuda::decoder
