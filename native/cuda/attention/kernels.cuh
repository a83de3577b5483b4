// Attention on a GPU, tile by tile in shared memory, for float32 and for sizes of heads that tensor cores do not take.
//
// A block has kTile rows (or keys) of one head, kLanesOfRow threads for each. Tiles that no row sees
// are not loaded. Sums have one order, so equal calls give equal bits.
#pragma once

#include "attention/operands.cuh"
#include "lowp/primitives.cuh"

namespace oarlock::cuda {

template <typename T>
__global__ void __launch_bounds__(kBlock)
    attention_forward(const T* q, const T* k, const T* v, T* out, float* lse, AttentionShape s,
                      Bounds mask) {
  float* const shared = reinterpret_cast<float*>(lowp::dynamic_shared());
  const std::int64_t pitch = s.dim + 1;
  float *const queries = shared, *const keys = queries + kTile * pitch;
  float *const values = keys + kTile * pitch, *const p = values + kTile * pitch;  // [kTile, kTile+1]
  const std::int64_t head = blockIdx.y, batch = blockIdx.z;
  const std::int64_t kv_head = head / (s.heads / s.kv_heads);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const int r = threadIdx.x / kLanesOfRow, lane = threadIdx.x % kLanesOfRow;
  load_tile(queries, q, batch, s.rows, first, s.heads, head, s.dim, s.scale);
  float largest = -INFINITY, sum = 0, sums[kMostOfThread] = {};
  for (std::int64_t key = 0; key < s.keys; key += kTile) {
    unsigned seen = 0;
    for (int i = 0; i < kShare; ++i)
      if (mask.sees(batch, kv_head, first + r, key + i * kLanesOfRow + lane)) seen |= 1u << i;
    if (!__syncthreads_or(seen)) continue;
    load_tile(keys, k, batch, s.keys, key, s.kv_heads, kv_head, s.dim, 1.0f);
    load_tile(values, v, batch, s.keys, key, s.kv_heads, kv_head, s.dim, 1.0f);
    __syncthreads();
    float scores[kShare], most = -INFINITY;
    for (int i = 0; i < kShare; ++i) {
      scores[i] = seen >> i & 1u ? dot(queries + r * pitch,
                                       keys + (i * kLanesOfRow + lane) * pitch, s.dim)
                                 : -INFINITY;
      most = fmaxf(most, scores[i]);
    }
    const float now = fmaxf(largest, largest_of_row(most));
    const float base = now == -INFINITY ? 0.0f : now, factor = expf(largest - base);
    float part = 0;
    for (int i = 0; i < kShare; ++i) {
      const float one = seen >> i & 1u ? expf(scores[i] - base) : 0.0f;
      p[r * (kTile + 1) + i * kLanesOfRow + lane] = one;
      part += one;
    }
    sum = sum * factor + sum_of_row(part);
    largest = now;
    __syncwarp();
    for (int i = 0, d = lane; d < s.dim; ++i, d += kLanesOfRow) {
      float next = sums[i] * factor;
      for (int j = 0; j < kTile; ++j) next = fmaf(p[r * (kTile + 1) + j], values[j * pitch + d], next);
      sums[i] = next;
    }
  }
  const std::int64_t row = first + r;
  if (row >= s.rows) return;
  T* const to = row_of(out, batch, s.rows, row, s.heads, head, s.dim);
  for (int i = 0, d = lane; d < s.dim; ++i, d += kLanesOfRow)
    put(to, d, sum == 0 ? 0.0f : sums[i] / sum);
  if (lane == 0)
    lse[(batch * s.heads + head) * s.rows + row] = sum == 0 ? -INFINITY : largest + logf(sum);
}

// The sum of out * out_grad of each row: [batch, heads, rows].
template <typename T>
__global__ void __launch_bounds__(kBlock)
    attention_deltas(const T* out, const T* out_grad, float* deltas, AttentionShape s) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kTile + threadIdx.x / kLanesOfRow;
  const std::int64_t head = blockIdx.y, batch = blockIdx.z;
  float sum = 0;
  if (row < s.rows) {
    const T* const a = row_of(out, batch, s.rows, row, s.heads, head, s.dim);
    const T* const b = row_of(out_grad, batch, s.rows, row, s.heads, head, s.dim);
    for (int d = threadIdx.x % kLanesOfRow; d < s.dim; d += kLanesOfRow)
      sum = fmaf(path::load(a, d), path::load(b, d), sum);
  }
  sum = sum_of_row(sum);
  if (row < s.rows && threadIdx.x % kLanesOfRow == 0)
    deltas[(batch * s.heads + head) * s.rows + row] = sum;
}

// Gradients of a tile of queries.
template <typename T>
__global__ void __launch_bounds__(kBlock)
    attention_query_grads(const T* q, const T* k, const T* v, const T* out_grad, const float* lse,
                          const float* deltas, T* q_grad, AttentionShape s, Bounds mask) {
  float* const shared = reinterpret_cast<float*>(lowp::dynamic_shared());
  const std::int64_t pitch = s.dim + 1;
  float *const queries = shared, *const grads = queries + kTile * pitch;
  float *const keys = grads + kTile * pitch, *const values = keys + kTile * pitch;
  float* const ds = values + kTile * pitch;  // [kTile, kTile + 1]
  const std::int64_t head = blockIdx.y, batch = blockIdx.z;
  const std::int64_t kv_head = head / (s.heads / s.kv_heads);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const int r = threadIdx.x / kLanesOfRow, lane = threadIdx.x % kLanesOfRow;
  const std::int64_t row = first + r, place = (batch * s.heads + head) * s.rows + row;
  load_tile(queries, q, batch, s.rows, first, s.heads, head, s.dim, s.scale);
  load_tile(grads, out_grad, batch, s.rows, first, s.heads, head, s.dim, 1.0f);
  const float log_sum = row < s.rows ? lse[place] : INFINITY;
  const float delta = row < s.rows ? deltas[place] : 0.0f;
  float sums[kMostOfThread] = {};
  for (std::int64_t key = 0; key < s.keys; key += kTile) {
    unsigned seen = 0;
    for (int i = 0; i < kShare; ++i)
      if (mask.sees(batch, kv_head, row, key + i * kLanesOfRow + lane)) seen |= 1u << i;
    if (!__syncthreads_or(seen)) continue;
    load_tile(keys, k, batch, s.keys, key, s.kv_heads, kv_head, s.dim, 1.0f);
    load_tile(values, v, batch, s.keys, key, s.kv_heads, kv_head, s.dim, 1.0f);
    __syncthreads();
    for (int i = 0; i < kShare; ++i) {
      const int j = i * kLanesOfRow + lane;
      float one = 0;
      if (seen >> i & 1u) {
        const float p = expf(dot(queries + r * pitch, keys + j * pitch, s.dim) - log_sum);
        one = p * (dot(grads + r * pitch, values + j * pitch, s.dim) - delta);
      }
      ds[r * (kTile + 1) + j] = one;
    }
    __syncwarp();
    for (int i = 0, d = lane; d < s.dim; ++i, d += kLanesOfRow)
      for (int j = 0; j < kTile; ++j)
        sums[i] = fmaf(ds[r * (kTile + 1) + j], keys[j * pitch + d], sums[i]);
  }
  if (row >= s.rows) return;
  T* const to = row_of(q_grad, batch, s.rows, row, s.heads, head, s.dim);
  for (int i = 0, d = lane; d < s.dim; ++i, d += kLanesOfRow) put(to, d, sums[i] * s.scale);
}

// Gradients of a tile of keys and values, over all heads of queries that they serve.
template <typename T>
__global__ void __launch_bounds__(kBlock)
    attention_key_grads(const T* q, const T* k, const T* v, const T* out_grad, const float* lse,
                        const float* deltas, T* k_grad, T* v_grad, AttentionShape s, Bounds mask) {
  float* const shared = reinterpret_cast<float*>(lowp::dynamic_shared());
  const std::int64_t pitch = s.dim + 1;
  float *const queries = shared, *const grads = queries + kTile * pitch;
  float *const keys = grads + kTile * pitch, *const values = keys + kTile * pitch;
  float *const ds = values + kTile * pitch, *const p = ds + kTile * (kTile + 1);  // [key, row]
  const std::int64_t kv_head = blockIdx.y, batch = blockIdx.z, group = s.heads / s.kv_heads;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kTile;
  const int c = threadIdx.x / kLanesOfRow, lane = threadIdx.x % kLanesOfRow;
  const std::int64_t key = first + c;
  load_tile(keys, k, batch, s.keys, first, s.kv_heads, kv_head, s.dim, 1.0f);
  load_tile(values, v, batch, s.keys, first, s.kv_heads, kv_head, s.dim, 1.0f);
  float key_sums[kMostOfThread] = {}, value_sums[kMostOfThread] = {};
  for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
    for (std::int64_t row = 0; row < s.rows; row += kTile) {
      unsigned seen = 0;
      for (int i = 0; i < kShare; ++i)
        if (mask.sees(batch, kv_head, row + i * kLanesOfRow + lane, key)) seen |= 1u << i;
      if (!__syncthreads_or(seen)) continue;
      load_tile(queries, q, batch, s.rows, row, s.heads, head, s.dim, s.scale);
      load_tile(grads, out_grad, batch, s.rows, row, s.heads, head, s.dim, 1.0f);
      __syncthreads();
      for (int i = 0; i < kShare; ++i) {
        const int r = i * kLanesOfRow + lane;
        float one = 0, grad = 0;
        if (seen >> i & 1u) {
          const std::int64_t place = (batch * s.heads + head) * s.rows + row + r;
          one = expf(dot(queries + r * pitch, keys + c * pitch, s.dim) - lse[place]);
          grad = one * (dot(grads + r * pitch, values + c * pitch, s.dim) - deltas[place]);
        }
        p[c * (kTile + 1) + r] = one;
        ds[c * (kTile + 1) + r] = grad;
      }
      __syncwarp();
      for (int i = 0, d = lane; d < s.dim; ++i, d += kLanesOfRow)
        for (int r = 0; r < kTile; ++r) {
          // Queries are scaled already, as the gradient of the keys needs them.
          key_sums[i] = fmaf(ds[c * (kTile + 1) + r], queries[r * pitch + d], key_sums[i]);
          value_sums[i] = fmaf(p[c * (kTile + 1) + r], grads[r * pitch + d], value_sums[i]);
        }
    }
  if (key >= s.keys) return;
  T* const k_to = row_of(k_grad, batch, s.keys, key, s.kv_heads, kv_head, s.dim);
  T* const v_to = row_of(v_grad, batch, s.keys, key, s.kv_heads, kv_head, s.dim);
  for (int i = 0, d = lane; d < s.dim; ++i, d += kLanesOfRow) {
    put(k_to, d, key_sums[i]);
    put(v_to, d, value_sums[i]);
  }
}

}  // namespace oarlock::cuda
