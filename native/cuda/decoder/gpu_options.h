// What crosses the C ABI for the steps of a decoder on a GPU; mirrored in oarlock/native/_decoder_cuda_abi.py.
#pragma once

#include <cstdint>

struct oarlock_cuda_norm_options {
  std::int32_t layer_norm;  // take the mean away
  float epsilon;
};

// One layer of a decoder, and which pages it has: those of oarlock_decoder_cache.
struct oarlock_cuda_attention_options {
  std::int32_t layer, layers, heads, kv_heads, head_size;
  std::int32_t format;         // of the cache, oarlock::decoder::CacheFormat
  std::int32_t rotary;         // how many of a head's numbers turn with the position, 0 for none
  std::int32_t rotary_halves;  // pairs are rotary / 2 apart, else neighbours
  std::int32_t window;         // positions that are seen, 0 for all
  std::int32_t least_rows, most_rows;  // of one sequence in this call
  std::int32_t most_length;    // positions of the longest sequence, those of this call included
  float scale;                 // of scores
};
