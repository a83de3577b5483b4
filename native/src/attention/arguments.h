// What the entry points of the CPU and of CUDA do with their arguments before any kernel runs.
#pragma once

#include "attention/options.h"
#include "core/tensors.h"

namespace oarlock::attention {

// Of a call: queries [batch, rows, heads, dim], keys and values [batch, keys, kv_heads, dim].
struct Shape {
  std::int64_t batch, rows, keys, heads, kv_heads, dim;
  std::int64_t group() const { return heads / kv_heads; }  // query heads of a key head
};

// Shapes, types and memory of the operands that are read.
Shape check_operands(const oarlock_tensors& q, const oarlock_tensors& k, const oarlock_tensors& v,
                     const oarlock_attention_options& options, Device device = {});

// A tensor that is as another in shape, type and device.
void check_like(const oarlock_tensors& tensor, const oarlock_tensors& like, Access access,
                Device device = {});

// float32 [batch, heads, rows].
void check_log_sums(const oarlock_tensors& lse, const Shape& shape, Access access,
                    Device device = {});

// int32 [batch or 1, kv_heads or 1, keys, 1, 2 or 4]; null is right. The numbers are looked at on
// the CPU only: elsewhere the caller has done so.
void check_bounds(const oarlock_tensors* bounds, const Shape& shape, bool causal,
                  Device device = {});

}  // namespace oarlock::attention
