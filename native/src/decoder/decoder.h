// A decoder-only transformer: rows of several sequences through all layers, keys and values in pages.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "core/buffer.h"
#include "decoder/adapter.h"
#include "decoder/cache.h"
#include "decoder/options.h"
#include "quant/product.h"
#include "ranks/ranks.h"

namespace oarlock::decoder {

std::int64_t page_bytes(const oarlock_decoder_model& model, CacheFormat format);

class Decoder {
 public:
  // Keeps the model's pointers, and memory for batches of `most_rows` rows. Throws BadArgument where sizes do
  // not fit together. With `ranks`, which must live as long, each rank has a part of the heads, of the feed-forward
  // network and of the head; all of them make their decoders together, and then go through the same batches.
  Decoder(const oarlock_decoder_model& model, std::int64_t most_rows, ranks::Ranks* ranks);

  // Throws BadArgument before anything is written.
  void forward(const oarlock_decoder_cache& cache, const oarlock_decoder_batch& batch, bool base,
               std::int32_t threads);

  // Keeps the adapter's pointers until it is unloaded; its number is new. Throws BadArgument where sizes
  // are not the model's, or there is no such adapter.
  std::int32_t load(const oarlock_decoder_adapter& adapter);
  void unload(std::int32_t number);

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
  void agree();
  void add_product(const Run& run, const oarlock_decoder_linear& given, const float* x,
                   std::int64_t stride, std::int64_t layer, Change change);
  std::vector<Run> split(const Run& run) const;
  template <typename Write>
  void share(const Run& run, const Write& write);
  void settle(const Run& run);
  void add_parts(const Run& run, std::int64_t first, std::int64_t rows, const float* const* parts);
  void gather(const Run& run, const float* last);
  void norm(const Run& run, const oarlock_decoder_norm& given, const float* x, std::int64_t rows,
            float* out);
  void linear(const Run& run, const oarlock_decoder_linear& given, const float* x,
              std::int64_t rows, float* out, bool accumulate);
  // What adapters add to a product of the rows `numbers` of the batch; null for those that begin with row `from`.
  void adapt(const Run& run, std::int64_t layer, std::int64_t change, const Changed& rows,
             const std::int64_t* numbers, std::int64_t from = 0);

  oarlock_decoder_model model_;
  std::vector<oarlock_decoder_layer> layers_;
  std::vector<std::vector<oarlock_decoder_linear>> experts_;
  std::int64_t most_rows_, most_inputs_;  // of a product
  ranks::Ranks* ranks_;
  std::vector<std::int64_t> head_widths_;  // of ranks
  std::vector<Tile> tiles_;
  std::vector<std::int64_t> positions_;  // of rows
  quant::Workspace workspace_;
  Buffer<float> hidden_, normed_, qkv_, attended_, up_, expert_in_, expert_out_, expert_sums_,
      gates_;
  std::vector<std::int64_t> expert_rows_;
  std::vector<float> expert_gates_;
  std::map<std::int32_t, std::unique_ptr<const Adapter>> adapters_;
  std::int32_t next_adapter_ = 0;
  std::vector<const Adapter*> adapter_of_row_;  // of a batch; empty where none has one
  Buffer<float> low_rank_;
};

}  // namespace oarlock::decoder
