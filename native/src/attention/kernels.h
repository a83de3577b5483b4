// The kernels of attention: what a code path provides.
//
// Work is cut into tiles of kTileRows queries and kTileKeys keys. All arithmetic is float32 on packed
// copies; scores are in units of log2 e, so that probabilities are powers of two.
#pragma once

#include <stdint.h>

namespace oarlock::attention {

constexpr int32_t kTileRows = 96, kTileKeys = 96;
constexpr int32_t kMaxDim = 256;
constexpr int32_t kPad = 16;  // packed rows are padded to a multiple of this

// Elements of a packed row.
static constexpr int64_t padded(int64_t dim) { return (dim + kPad - 1) / kPad * kPad; }

// For each key of a tile the rows that do not see it: [begin[i], end[i]) for both i. A key has
// kIntervals * 2 numbers, each kind in an array of its own.
constexpr int kIntervals = 2;
struct Intervals {
  const int32_t* begin[kIntervals];
  const int32_t* end[kIntervals];
};

// Rows of one head in memory: row i begins at data + i * stride elements.
struct Rows {
  void* data;
  int64_t stride;
};

// Tiles of keys that rows pass at once in the forward pass.
constexpr int32_t kTilesAtOnce = 4;

// A tile of keys in the forward pass.
struct KeyTile {
  const float* key_panels;  // as PackKernels::panels leaves them
  const float* values;      // [kTileKeys, padded(dim)]
  bool masked;              // false: every row sees every key
  Intervals mask;
};

// A tile of rows and some tiles of keys; the state of the rows is kept between calls.
struct ForwardTile {
  int64_t dim;
  int32_t rows, first_row;  // of this tile; the number of the first in the sequence
  const float* queries;     // [kTileRows, padded(dim)], times scale log2 e
  float* out;               // [kTileRows, padded(dim)], not yet divided by the sums
  float* largest;           // [kTileRows], the largest score so far
  float* sums;              // [kTileRows, kPad], parts of the sum of 2^(score - largest)
  int32_t count;            // of tiles of keys, at most kTilesAtOnce
  KeyTile keys[kTilesAtOnce];
};

// One tile of the backward pass.
struct BackwardTile {
  int64_t dim;
  int32_t rows, first_row;
  const float *queries, *out_grads;           // [kTileRows, padded(dim)], queries as above
  const float *log_sums, *deltas;             // [kTileRows], of the scores; rows of out * out_grad
  const float *key_panels, *value_panels;     // as PackKernels::panels leaves them
  const float* keys;                          // [kTileKeys, padded(dim)]
  const Intervals* mask;                      // null: every row sees every key
  float *probabilities, *score_grads;         // [kTileRows, kTileKeys], for the kernel's use
  float* query_grads;                         // [kTileRows, padded(dim)], added to
  float *key_grads, *value_grads;             // [kTileKeys, padded(dim)], added to
};

// Index in tables by the type of storage: float32 or bfloat16.
enum Storage : int32_t { kStoreF32 = 0, kStoreBf16 = 1, kStorages = 2 };

// pack.kernel.cpp
struct PackKernels {
  // Rows times `scale` into [room, padded(dim)]; rows from `count` on become 0.
  void (*rows[kStorages])(const Rows& from, int32_t count, int32_t room, int64_t dim, float scale,
                          float* to);
  // A tile of keys in panels, the keys of a panel beside each other; keys from `count` on are 0.
  void (*panels[kStorages])(const Rows& from, int32_t count, int64_t dim, float* to);
  // Rows of [count, padded(dim)] times `scale` and, unless null, times a factor for each.
  void (*unpack[kStorages])(const float* from, const float* factors, float scale, int32_t count,
                            int64_t dim, const Rows& to);
  // For each row the sum of the products of a and b.
  void (*row_products)(const float* a, const float* b, int32_t count, int64_t dim, float* to);
};

// forward.kernel.cpp
struct ForwardKernels {
  void (*tile)(const ForwardTile& tile);
  void (*exp2)(const float* x, float* y, int64_t n);  // what the tiles use, for tests
};

// backward.kernel.cpp
struct BackwardKernels {
  void (*tile)(const BackwardTile& tile);
};

// peak.kernel.cpp
struct PeakKernels {
  // Does at most 384 multiplications with addition for each round; returns how many in all. `out`
  // holds 32 numbers below 1.
  int64_t (*multiply_adds)(int64_t rounds, float* out);
};

}  // namespace oarlock::attention
