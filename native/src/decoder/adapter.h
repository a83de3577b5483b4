// Low-rank changes of a decoder's products (LoRA, 2106.09685).
#pragma once

#include <cstdint>
#include <vector>

#include "core/buffer.h"
#include "decoder/options.h"
#include "quant/product.h"

namespace oarlock::decoder {

// What a layer's products are called here: qkv, out, then up and down of the feed-forward network or of each
// expert.
enum Change : std::int64_t { kQkv, kOut, kUp, kDown };
constexpr std::int64_t change_of_expert(std::int64_t expert, Change change) {
  return 2 * expert + change;
}

// Rows beside each other that an adapter changes.
struct Changed {
  const float* x;  // [rows, x_stride]
  std::int64_t x_stride, rows;
  float* out;      // [rows, stride], the product so far
  std::int64_t stride;
};

class Adapter {
 public:
  // Keeps pointers to the matrices. Throws BadArgument where sizes are not the model's.
  Adapter(const oarlock_decoder_adapter& given, const oarlock_decoder_model& model);

  // out += (x A) B. `room` holds rows times ranks().
  void add(std::int64_t layer, std::int64_t change, const Changed& rows, float* room,
           quant::Workspace& workspace, bool base, std::int32_t threads) const;

  // Most columns of an A.
  std::int64_t ranks() const { return ranks_; }

 private:
  struct Part {
    quant::Matrix b;
    std::int64_t rank, output;
  };
  struct LowRank {
    quant::Matrix a;
    std::vector<Part> parts;
  };

  void take(const oarlock_decoder_low_rank& given, std::int64_t inputs, std::int64_t outputs,
            const char* name, std::int64_t layer);

  std::int64_t ranks_ = 0;
  std::vector<std::vector<LowRank>> layers_;  // by Change
};

}  // namespace oarlock::decoder
