// What crosses the C ABI for a decoder; mirrored in oarlock/native/_decoder_abi.py.
#pragma once

#include <cstdint>

struct oarlock_decoder_matrix {
  const void* packed;  // of the quant family; null where a model has none
  std::int64_t inputs, outputs;
  std::int32_t format;
};

// y = x W + bias; the bias may be null.
struct oarlock_decoder_linear {
  oarlock_decoder_matrix weight;
  const float* bias;
};

struct oarlock_decoder_norm {
  const float* weight;  // null where a model has none
  const float* bias;    // null but for layer norms
};

struct oarlock_decoder_layer {
  oarlock_decoder_norm attention_norm, feed_forward_norm;
  oarlock_decoder_linear qkv;   // queries, keys and values beside each other
  oarlock_decoder_linear out;
  oarlock_decoder_linear up;    // gate and up beside each other where the activation has a gate
  oarlock_decoder_linear down;
  oarlock_decoder_matrix router;          // with experts, in place of up and down
  const oarlock_decoder_linear* experts;  // up and down of each
};

struct oarlock_decoder_model {
  std::int32_t layers, hidden, heads, kv_heads, head_size, intermediate, vocab, max_length;
  std::int32_t experts, experts_per_token;  // 0 without
  std::int32_t layer_norm;                  // else the root-mean-square norm
  std::int32_t activation;                  // oarlock::decoder::Activation
  std::int32_t rotary;                      // how many of a head's numbers turn with the position
  std::int32_t rotary_halves;               // pairs are rotary / 2 apart, else neighbours
  std::int32_t window;                      // positions that are seen, 0 for all
  float epsilon, attention_scale;
  const float* cos;        // [max_length, rotary / 2]
  const float* sin;
  const float* slopes;     // [heads], of a bias linear in the distance, or null
  const float* positions;  // [max_length, hidden], added to embeddings, or null
  oarlock_decoder_matrix embedding;   // [hidden, vocab]
  oarlock_decoder_norm embedding_norm, final_norm;
  oarlock_decoder_matrix head;        // [hidden, vocab]
  const oarlock_decoder_layer* of_layer;
};

// A share of an adapter's change of a product: columns `output` on gain (x A)[rank on] B.
struct oarlock_decoder_low_rank_part {
  oarlock_decoder_matrix b;  // [ranks, outputs], times the adapter's scale
  std::int64_t rank, output;
};

struct oarlock_decoder_low_rank {
  oarlock_decoder_matrix a;  // [inputs, ranks], those of all parts beside each other; null for no change
  const oarlock_decoder_low_rank_part* of_part;
  std::int64_t parts;
};

struct oarlock_decoder_adapter_layer {
  oarlock_decoder_low_rank qkv, out, up, down;
  const oarlock_decoder_low_rank* experts;  // up and down of each, or null
};

struct oarlock_decoder_adapter {
  const oarlock_decoder_adapter_layer* of_layer;
};

struct oarlock_decoder_cache {
  void* memory;         // of pages times page_bytes, zero at first
  std::int64_t pages;
  std::int32_t format;  // oarlock::decoder::CacheFormat
};

// Rows of one sequence stand together, at rising positions without gaps, each sequence once.
struct oarlock_decoder_batch {
  std::int64_t rows, sequences, most_pages, logits;
  const std::int32_t* tokens;       // [rows]
  const std::int32_t* starts;       // [sequences], position of the first row
  const std::int32_t* counts;       // [sequences], rows; they sum to `rows`
  const std::int32_t* pages;        // [sequences, most_pages], those of each from its beginning
  const std::int32_t* adapters;     // [sequences], numbers of loaded adapters, -1 without; or null
  const std::int32_t* wanted;       // [logits], rows whose results are wanted
  float* out_logits;                // [logits, vocab], or null
  float* out_hidden;                // [logits, hidden] after the last norm, or null
};
