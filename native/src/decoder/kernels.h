// The kernels of a decoder beside its products, a table for each code path.
#pragma once

#include <stdint.h>

#include "decoder/cache.h"

namespace oarlock::decoder {

enum class Activation : int32_t { swiglu, gelu_tanh, gelu, relu };
constexpr int kActivations = 4;

// Queries of one sequence that share a head of keys.
struct Queries {
  const float* const* rows;  // [count] each [head_size]; times the scale of attention and log2 e
  const int32_t* first;      // [count], positions seen: first to last - 1
  const int32_t* last;
  const float* slopes;       // [count], times log2 e; null for none
  float* const* out;         // [count] each [head_size]
  int32_t count;             // at most kMostQueries
};
constexpr int kMostQueries = 8;

// Where a head's keys and values are: page of positions 16 i to 16 i + 15 at pages[i].
struct Pages {
  const uint8_t* memory;
  const int32_t* pages;
  int64_t page_bytes;
  int64_t head_size;
};

struct StepKernels {
  void (*rms_norm)(const float* x, int64_t n, const float* weight, float epsilon, float* out);
  // The bias may be null.
  void (*layer_norm)(const float* x, int64_t n, const float* weight, const float* bias,
                     float epsilon, float* out);
  // The first `rotary` numbers of each of `heads` heads, in place.
  void (*rotate)(float* x, int64_t heads, int64_t head_size, int64_t rotary, bool halves,
                 const float* cos, const float* sin);
  // By Activation; n numbers out. With a gate, x is [gate n, up n]. In place where out is x.
  void (*activate[kActivations])(const float* x, int64_t n, float* out);
  // out = x * by, and out += x * by.
  void (*scale)(const float* x, int64_t n, float by, float* out);
  void (*add_scaled)(const float* x, int64_t n, float by, float* out);
  void (*softmax)(float* x, int64_t n);
};

struct AttentionKernels {
  // A key and a value into place `place` of a head's page.
  void (*store[kCacheFormats])(const float* key, const float* value, int64_t head_size, int64_t place,
                               uint8_t* head);
  void (*attend[kCacheFormats])(const Queries& queries, const Pages& pages);
};

}  // namespace oarlock::decoder
