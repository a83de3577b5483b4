// A decoder-only transformer: rows of several sequences through all layers, keys and values in pages.
#pragma once

#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "decoder/cache.h"
#include "decoder/options.h"
#include "quant/product.h"

namespace oarlock::decoder {

std::int64_t page_bytes(const oarlock_decoder_model& model, CacheFormat format);

class Decoder {
 public:
  // Keeps the model's pointers, and memory for batches of `most_rows` rows. Throws BadArgument where sizes do
  // not fit together.
  Decoder(const oarlock_decoder_model& model, std::int64_t most_rows);

  // Throws BadArgument before anything is written.
  void forward(const oarlock_decoder_cache& cache, const oarlock_decoder_batch& batch, bool base,
               std::int32_t threads);

  const oarlock_decoder_model& model() const { return model_; }

 private:
  struct Run;
  struct Tile {
    std::int64_t sequence, row;  // the first row
    std::int32_t count;
  };

  void embed(const Run& run);
  void attention(const Run& run, const oarlock_decoder_layer& layer, std::int64_t number);
  void feed_forward(const Run& run, const oarlock_decoder_layer& layer);
  void experts(const Run& run, const oarlock_decoder_layer& layer);
  void results(const Run& run);
  void norm(const Run& run, const oarlock_decoder_norm& given, const float* x, std::int64_t rows,
            float* out);
  void linear(const Run& run, const oarlock_decoder_linear& given, const float* x,
              std::int64_t rows, float* out, bool accumulate);

  oarlock_decoder_model model_;
  std::vector<oarlock_decoder_layer> layers_;
  std::vector<std::vector<oarlock_decoder_linear>> experts_;
  std::int64_t most_rows_;
  std::vector<Tile> tiles_;
  std::vector<std::int64_t> positions_;  // of rows
  quant::Workspace workspace_;
  Buffer<float> hidden_, normed_, qkv_, attended_, up_, expert_in_, expert_out_, gates_;
  std::vector<std::int64_t> expert_rows_;
  std::vector<float> expert_gates_;
};

}  // namespace oarlock::decoder
