// One launch over many tensors: pointers travel as kernel arguments, so nothing is copied first.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/abi.h"

namespace oarlock::cuda {

constexpr int kThreads = 256;
constexpr std::int64_t kChunk = 8192;  // elements of a block; divides 2^32
constexpr int kTensors = 64;           // of a launch; arguments must stay below 4 KiB

// Up to kTensors tensors with `Lists` pointers each.
template <int Lists>
struct Batch {
  void* data[Lists][kTensors];
  std::int64_t count[kTensors];
  std::int32_t first_block[kTensors + 1];
  std::int32_t index[kTensors];  // in the caller's list
  std::int32_t size;
};

// The tensor of a block, and where the block begins in it.
template <int Lists>
__device__ inline int tensor_of(const Batch<Lists>& batch, std::int64_t* begin) {
  const int block = static_cast<int>(blockIdx.x);
  int low = 0, high = batch.size;  // first_block[low] <= block < first_block[high]
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (batch.first_block[middle] <= block)
      low = middle;
    else
      high = middle;
  }
  *begin = (block - batch.first_block[low]) * kChunk;
  return low;
}

// Calls launch(batch, blocks, first) for batches of the tensors that `wanted` picks; `first` is the
// number of blocks in earlier batches.
template <int Lists, typename Wanted, typename Launch>
std::int64_t for_batches(const oarlock_tensors* const (&lists)[Lists], const Wanted& wanted,
                         const Launch& launch) {
  constexpr std::int64_t most = std::int64_t{1} << 30;  // blocks of a launch
  Batch<Lists> batch;
  std::int64_t launched = 0;
  batch.size = 0;
  batch.first_block[0] = 0;
  const auto flush = [&] {
    const std::int32_t blocks = batch.first_block[batch.size];
    if (blocks > 0) launch(batch, blocks, launched);
    launched += blocks;
    batch.size = 0;
  };
  for (std::int64_t i = 0; i < lists[0]->count; ++i) {
    const std::int64_t count = lists[0]->items[i].count;
    if (count == 0 || !wanted(i)) continue;
    const std::int64_t blocks = (count + kChunk - 1) / kChunk;
    if (batch.size == kTensors || batch.first_block[batch.size] + blocks > most) flush();
    for (int list = 0; list < Lists; ++list)
      batch.data[list][batch.size] = lists[list]->items[i].data;
    batch.count[batch.size] = count;
    batch.index[batch.size] = static_cast<std::int32_t>(i);
    batch.first_block[batch.size + 1] =
        batch.first_block[batch.size] + static_cast<std::int32_t>(blocks);
    ++batch.size;
  }
  flush();
  return launched;
}

}  // namespace oarlock::cuda
