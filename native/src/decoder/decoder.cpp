#include "decoder/decoder.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/dispatch.h"
#include "core/error.h"
#include "core/parallel.h"
#include "decoder/kernels.h"
#include "decoder/sizes.h"
#include "quant/pack.h"

OARLOCK_DECLARE_KERNELS(oarlock::decoder::StepKernels, decoder_step_kernels)
OARLOCK_DECLARE_KERNELS(oarlock::decoder::AttentionKernels, decoder_attention_kernels)

namespace oarlock::decoder {
namespace {

constexpr float kLog2E = 1.44269504088896340736f;
constexpr std::int64_t kMostGroup = 64;  // queries that share a head of keys
constexpr std::int64_t kRowsOfTask = 4;
constexpr std::int64_t kRowsToSplit = 128;  // a half still has enough for products to be fast

void check_matrix(const oarlock_decoder_matrix& given, std::int64_t inputs, std::int64_t outputs,
                  const std::string& name) {
  check(given.packed != nullptr, name + " is missing");
  check(given.format >= 0 && given.format < quant::kFormats, name + " has an unknown format");
  check(given.inputs == inputs && given.outputs == outputs,
        name + " is [" + std::to_string(given.inputs) + ", " + std::to_string(given.outputs) +
            "], but must be [" + std::to_string(inputs) + ", " + std::to_string(outputs) + "]");
}

void check_model(const oarlock_decoder_model& m) {
  for (const std::int32_t size : {m.layers, m.hidden, m.heads, m.kv_heads, m.head_size,
                                  m.intermediate, m.vocab, m.max_length})
    check(size > 0, "sizes of the model must be positive");
  check(m.heads % m.kv_heads == 0 && m.heads / m.kv_heads <= kMostGroup,
        "heads must be a multiple of kv_heads, 64 times as many at most");
  check(m.rotary >= 0 && m.rotary <= m.head_size && m.rotary % 2 == 0,
        "rotary must be even and at most head_size");
  check((m.rotary == 0) == (m.cos == nullptr) && (m.cos == nullptr) == (m.sin == nullptr),
        "cos and sin must be given where rotary is not 0");
  check(m.activation >= 0 && m.activation < kActivations, "activation is unknown");
  check(m.experts >= 0 && m.experts_per_token >= 0 && m.experts_per_token <= m.experts &&
            (m.experts == 0) == (m.experts_per_token == 0),
        "experts_per_token must be at most experts");
  check(m.window >= 0, "window must not be negative");
  check(m.final_norm.weight != nullptr, "final_norm is missing");
}

// Rows with `body(first, end)` in pieces.
template <typename Body>
void rows_for(std::int64_t rows, std::int32_t threads, const Body& body) {
  parallel_for((rows + kRowsOfTask - 1) / kRowsOfTask, threads, [&](std::int64_t task) {
    body(task * kRowsOfTask, std::min(rows, (task + 1) * kRowsOfTask));
  });
}

}  // namespace

struct Decoder::Run {
  const oarlock_decoder_cache& cache;
  const oarlock_decoder_batch& batch;
  const StepKernels& steps;
  const AttentionKernels& attends;
  bool base;
  std::int32_t threads;
  std::int64_t first, rows;  // of the batch
  std::int64_t tile, tiles;  // theirs
  bool split = false;        // sums of these rows travel while others are computed

  CacheFormat format() const { return static_cast<CacheFormat>(cache.format); }
  const std::int32_t* pages(std::int64_t sequence) const {
    return batch.pages + sequence * batch.most_pages;
  }
};

std::int64_t page_bytes(const oarlock_decoder_model& m, CacheFormat format) {
  return std::int64_t{m.layers} * m.kv_heads * head_bytes(format, m.head_size);
}

Decoder::Decoder(const oarlock_decoder_model& model, std::int64_t most_rows, ranks::Ranks* ranks)
    : model_(model), most_rows_(most_rows), ranks_(ranks) {
  check_model(model);
  check(most_rows > 0, "most_rows must be positive");
  const std::int64_t D = model.hidden, HK = std::int64_t{model.heads} * model.head_size;
  const std::int64_t F = model.intermediate;
  check_matrix(model.embedding, D, model.vocab, "embedding");
  if (ranks == nullptr || model.head.outputs > 0)  // a rank may have no part of the head
    check_matrix(model.head, D, ranks == nullptr ? model.vocab : model.head.outputs, "head");
  for (std::int32_t i = 0; i < model.layers; ++i) {
    const oarlock_decoder_layer& layer = model.of_layer[i];
    const std::string name = "of layer " + std::to_string(i);
    check_matrix(layer.qkv.weight, D, qkv_width(model), "qkv " + name);
    check_matrix(layer.out.weight, HK, D, "out " + name);
    check(layer.attention_norm.weight != nullptr && layer.feed_forward_norm.weight != nullptr,
          "a norm " + name + " is missing");
    layers_.push_back(layer);
    std::vector<oarlock_decoder_linear> pairs;
    if (model.experts > 0) {
      check_matrix(layer.router, D, model.experts, "router " + name);
      check(layer.experts != nullptr, "experts " + name + " are missing");
      pairs.assign(layer.experts, layer.experts + 2 * model.experts);
    } else {
      pairs = {layer.up, layer.down};
    }
    for (std::size_t j = 0; j < pairs.size(); j += 2) {
      check_matrix(pairs[j].weight, D, up_width(model), "up " + name);
      check_matrix(pairs[j + 1].weight, F, D, "down " + name);
    }
    experts_.push_back(std::move(pairs));
  }
  most_inputs_ = std::max({D, HK, F});
  workspace_ = quant::Workspace(most_rows, most_inputs_);
  hidden_.allocate(most_rows * D);
  normed_.allocate(most_rows * D);
  qkv_.allocate(most_rows * qkv_width(model));
  attended_.allocate(most_rows * HK);
  up_.allocate(most_rows * up_width(model));
  if (model.experts > 0) {
    expert_in_.allocate(most_rows * D);
    expert_out_.allocate(most_rows * D);
    if (ranks != nullptr) expert_sums_.allocate(most_rows * D);
    gates_.allocate(most_rows * model.experts);
    expert_rows_.reserve(most_rows);
    expert_gates_.reserve(most_rows);
  }
  tiles_.reserve(most_rows);
  positions_.reserve(most_rows);
  adapter_of_row_.reserve(most_rows);
  if (ranks != nullptr) agree();
}

std::int32_t Decoder::load(const oarlock_decoder_adapter& adapter) {
  auto made = std::make_unique<const Adapter>(adapter, model_);
  const std::int64_t ranks = made->ranks();
  if (low_rank_.size() < most_rows_ * ranks) low_rank_.allocate(most_rows_ * ranks);
  if (ranks > most_inputs_) {
    workspace_ = quant::Workspace(most_rows_, ranks);
    most_inputs_ = ranks;
  }
  adapters_.emplace(next_adapter_, std::move(made));
  return next_adapter_++;
}

void Decoder::unload(std::int32_t number) {
  check(adapters_.erase(number) == 1, "there is no adapter " + std::to_string(number));
}

void Decoder::forward(const oarlock_decoder_cache& cache, const oarlock_decoder_batch& batch,
                      bool base, std::int32_t threads) {
  check(cache.format >= 0 && cache.format < kCacheFormats, "the cache's format is unknown");
  check(batch.rows > 0 && batch.rows <= most_rows_,
        "a batch must have between 1 and " + std::to_string(most_rows_) + " rows, not " +
            std::to_string(batch.rows));
  std::int64_t rows = 0;
  const std::int64_t group = model_.heads / model_.kv_heads;
  const std::int64_t rows_of_tile = std::max<std::int64_t>(1, kMostQueries / group);
  tiles_.clear();
  positions_.clear();
  adapter_of_row_.clear();
  for (std::int64_t s = 0; s < batch.sequences; ++s) {
    const std::int64_t start = batch.starts[s], count = batch.counts[s];
    check(count > 0 && start >= 0 && start + count <= model_.max_length,
          "a sequence reaches position " + std::to_string(start + count) +
              ", but max_length is " + std::to_string(model_.max_length));
    check(rows + count <= batch.rows, "counts must sum to the number of rows");
    check(start + count <= batch.most_pages * kPage, "a sequence has fewer pages than it fills");
    for (std::int64_t i = 0; i * kPage < start + count; ++i) {
      const std::int32_t page = batch.pages[s * batch.most_pages + i];
      check(page >= 0 && page < cache.pages,
            "pages must be in [0, " + std::to_string(cache.pages) + "), not " +
                std::to_string(page));
    }
    for (std::int64_t row = 0; row < count; row += rows_of_tile)
      tiles_.push_back({s, rows + row,
                        static_cast<std::int32_t>(std::min(rows_of_tile, count - row))});
    for (std::int64_t row = 0; row < count; ++row) positions_.push_back(start + row);
    const std::int32_t adapter = batch.adapters != nullptr ? batch.adapters[s] : -1;
    const auto loaded = adapters_.find(adapter);
    check(adapter == -1 || loaded != adapters_.end(),
          "there is no adapter " + std::to_string(adapter));
    if (adapter != -1) adapter_of_row_.resize(rows);  // null for those before
    if (adapter != -1 || !adapter_of_row_.empty())
      adapter_of_row_.resize(rows + count, adapter != -1 ? loaded->second.get() : nullptr);
    rows += count;
  }
  check(rows == batch.rows, "counts must sum to the number of rows");
  for (std::int64_t i = 0; i < rows; ++i)
    check(batch.tokens[i] >= 0 && batch.tokens[i] < model_.vocab,
          "tokens must be in [0, " + std::to_string(model_.vocab) + "), not " +
              std::to_string(batch.tokens[i]));
  check(batch.logits >= 0 && batch.logits <= rows, "more results are wanted than there are rows");
  for (std::int64_t i = 0; i < batch.logits; ++i)
    check(batch.wanted[i] >= 0 && batch.wanted[i] < rows, "a wanted row is not in the batch");
  const Run run{cache,   batch, OARLOCK_KERNELS(decoder_step_kernels),
                OARLOCK_KERNELS(decoder_attention_kernels), base, threads,
                0, rows, 0, static_cast<std::int64_t>(tiles_.size())};
  embed(run);
  const std::vector<Run> parts = split(run);
  for (std::int32_t i = 0; i < model_.layers; ++i) {
    for (const Run& part : parts) {
      if (i > 0) settle(part);
      attention(part, layers_[i], i);
    }
    for (const Run& part : parts) {
      settle(part);
      if (model_.experts > 0)
        experts(part, layers_[i]);
      else
        feed_forward(part, layers_[i]);
    }
  }
  for (const Run& part : parts) settle(part);
  results(run);
}

void Decoder::norm(const Run& run, const oarlock_decoder_norm& given, const float* x,
                   std::int64_t rows, float* out) {
  const std::int64_t D = model_.hidden;
  if (run.split) ranks_->progress();
  rows_for(rows, run.threads, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t row = first; row < end; ++row)
      if (model_.layer_norm != 0)
        run.steps.layer_norm(x + row * D, D, given.weight, given.bias, model_.epsilon,
                             out + row * D);
      else
        run.steps.rms_norm(x + row * D, D, given.weight, model_.epsilon, out + row * D);
  });
}

void Decoder::linear(const Run& run, const oarlock_decoder_linear& given, const float* x,
                     std::int64_t rows, float* out, bool accumulate) {
  if (run.split) ranks_->progress();
  quant::multiply(x, given.weight.inputs, rows, matrix(given.weight),
                  {out, given.weight.outputs, given.bias, accumulate}, workspace_, run.base,
                  run.threads);
}

void Decoder::adapt(const Run& run, std::int64_t layer, std::int64_t change, const Changed& rows,
                    const std::int64_t* numbers, std::int64_t from) {
  if (adapter_of_row_.empty()) return;
  const auto of = [&](std::int64_t row) {
    return adapter_of_row_[numbers != nullptr ? numbers[row] : from + row];
  };
  for (std::int64_t first = 0, end; first < rows.rows; first = end) {
    for (end = first + 1; end < rows.rows && of(end) == of(first);) ++end;
    if (of(first) != nullptr)
      of(first)->add(layer, change,
                     {rows.x + first * rows.x_stride, rows.x_stride, end - first,
                      rows.out + first * rows.stride, rows.stride},
                     low_rank_.data(), workspace_, run.base, run.threads);
  }
}

void Decoder::embed(const Run& run) {
  const std::int64_t D = model_.hidden;
  const quant::Matrix table = matrix(model_.embedding);
  rows_for(run.batch.rows, run.threads, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t row = first; row < end; ++row) {
      float* const x = hidden_.data() + row * D;
      quant::unpack_output(table.packed, D, run.batch.tokens[row], table.format, x);
      if (model_.positions != nullptr)
        run.steps.add_scaled(model_.positions + positions_[row] * D, D, 1.0f, x);
    }
  });
  if (model_.embedding_norm.weight != nullptr)
    norm(run, model_.embedding_norm, hidden_.data(), run.batch.rows, hidden_.data());
}

void Decoder::attention(const Run& run, const oarlock_decoder_layer& layer, std::int64_t number) {
  const oarlock_decoder_model& m = model_;
  const std::int64_t rows = run.rows, K = m.head_size, width = qkv_width(m);
  const std::int64_t heads = m.heads, kv_heads = m.kv_heads, group = heads / kv_heads;
  const std::int64_t bytes = page_bytes(m, run.format()), one = head_bytes(run.format(), K);
  std::uint8_t* const memory =
      static_cast<std::uint8_t*>(run.cache.memory) + number * kv_heads * one;
  const auto format = static_cast<int>(run.format());
  float* const normed = normed_.data() + run.first * m.hidden;
  float* const qkv = qkv_.data() + run.first * width;
  norm(run, layer.attention_norm, hidden_.data() + run.first * m.hidden, rows, normed);
  linear(run, layer.qkv, normed, rows, qkv, false);
  adapt(run, number, kQkv, {normed, m.hidden, rows, qkv, width}, nullptr, run.first);
  const auto each_tile = [&](const auto& body) {
    parallel_for(run.tiles, run.threads, [&](std::int64_t i) { body(tiles_[run.tile + i]); });
  };
  each_tile([&](const Tile& tile) {
    const std::int32_t* const pages = run.pages(tile.sequence);
    for (std::int64_t row = tile.row; row < tile.row + tile.count; ++row) {
      const std::int64_t at = positions_[row];
      float* const queries = qkv_.data() + row * width;
      float* const keys = queries + heads * K;
      if (m.rotary > 0) {
        const float *cos = m.cos + at * (m.rotary / 2), *sin = m.sin + at * (m.rotary / 2);
        run.steps.rotate(queries, heads + kv_heads, K, m.rotary, m.rotary_halves != 0, cos, sin);
      }
      run.steps.scale(queries, heads * K, m.attention_scale * kLog2E, queries);
      std::uint8_t* const page = memory + pages[at / kPage] * bytes;
      for (std::int64_t g = 0; g < kv_heads; ++g)
        run.attends.store[format](keys + g * K, keys + (kv_heads + g) * K, K, at % kPage,
                                  page + g * one);
    }
  });
  parallel_for(run.tiles * kv_heads, run.threads, [&](std::int64_t task) {
    const Tile& tile = tiles_[run.tile + task / kv_heads];
    const std::int64_t g = task % kv_heads;
    const float* queries[kMostGroup];
    float* outs[kMostGroup];
    std::int32_t first[kMostGroup], last[kMostGroup];
    float slopes[kMostGroup];
    std::int32_t count = 0;
    for (std::int64_t row = tile.row; row < tile.row + tile.count; ++row)
      for (std::int64_t h = g * group; h < (g + 1) * group; ++h, ++count) {
        const std::int64_t end = positions_[row] + 1;
        queries[count] = qkv_.data() + row * width + h * K;
        outs[count] = attended_.data() + row * heads * K + h * K;
        last[count] = static_cast<std::int32_t>(end);
        first[count] = static_cast<std::int32_t>(
            m.window > 0 ? std::max<std::int64_t>(0, end - m.window) : 0);
        slopes[count] = m.slopes != nullptr ? m.slopes[h] * kLog2E : 0.0f;
      }
    const Queries some{queries, first, last, m.slopes != nullptr ? slopes : nullptr, outs, count};
    run.attends.attend[format](
        some, {memory + g * one, run.pages(tile.sequence), bytes, K});
  });
  add_product(run, layer.out, attended_.data(), heads * K, number, kOut);
}

void Decoder::feed_forward(const Run& run, const oarlock_decoder_layer& layer) {
  const std::int64_t rows = run.rows, D = model_.hidden, F = model_.intermediate;
  const std::int64_t width = up_width(model_), number = &layer - layers_.data();
  float* const normed = normed_.data() + run.first * D;
  float* const up = up_.data() + run.first * width;
  norm(run, layer.feed_forward_norm, hidden_.data() + run.first * D, rows, normed);
  linear(run, layer.up, normed, rows, up, false);
  adapt(run, number, kUp, {normed, D, rows, up, width}, nullptr, run.first);
  rows_for(rows, run.threads, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t row = first; row < end; ++row)
      run.steps.activate[model_.activation](up + row * width, F, up + row * width);
  });
  add_product(run, layer.down, up_.data(), width, number, kDown);
}

void Decoder::experts(const Run& run, const oarlock_decoder_layer& layer) {
  const std::int64_t rows = run.rows, D = model_.hidden, E = model_.experts;
  const std::int64_t F = model_.intermediate, width = up_width(model_);
  const std::int64_t number = &layer - layers_.data();
  float* const normed = normed_.data() + run.first * D;
  norm(run, layer.feed_forward_norm, hidden_.data() + run.first * D, rows, normed);
  linear(run, {layer.router, nullptr}, normed, rows, gates_.data(), false);
  // Gates of the best experts, which sum to 1; of all others 0. Of equals the earlier one is better.
  rows_for(rows, run.threads, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t row = first; row < end; ++row) {
      float* const gates = gates_.data() + row * E;
      run.steps.softmax(gates, E);
      for (std::int64_t e = 0; e < E; ++e) {
        std::int64_t better = 0;
        for (std::int64_t other = 0; other < E; ++other) {
          const float theirs = gates[other] < 0 ? -gates[other] : gates[other];
          const float mine = gates[e] < 0 ? -gates[e] : gates[e];
          better += theirs > mine || (theirs == mine && other < e);
        }
        // Marked by the sign until all are ranked.
        if (better >= model_.experts_per_token) gates[e] = -gates[e];
      }
      float sum = 0;
      for (std::int64_t e = 0; e < E; ++e) {
        if (gates[e] < 0) gates[e] = 0;
        sum += gates[e];
      }
      run.steps.scale(gates, E, 1.0f / sum, gates);
    }
  });
  float* const sums = ranks_ == nullptr ? hidden_.data() : expert_sums_.data();
  if (ranks_ != nullptr) std::fill_n(sums + run.first * D, rows * D, 0.0f);
  for (std::int64_t e = 0; e < E; ++e) {
    expert_rows_.clear();
    expert_gates_.clear();
    for (std::int64_t row = 0; row < rows; ++row)
      if (gates_[row * E + e] > 0) {
        expert_rows_.push_back(run.first + row);
        expert_gates_.push_back(gates_[row * E + e]);
      }
    const auto count = static_cast<std::int64_t>(expert_rows_.size());
    if (count == 0) continue;
    for (std::int64_t i = 0; i < count; ++i)
      std::memcpy(expert_in_.data() + i * D, normed_.data() + expert_rows_[i] * D,
                  D * sizeof(float));
    const oarlock_decoder_linear& up = experts_[number][2 * e];
    const oarlock_decoder_linear& down = experts_[number][2 * e + 1];
    linear(run, up, expert_in_.data(), count, up_.data(), false);
    adapt(run, number, change_of_expert(e, kUp),
          {expert_in_.data(), D, count, up_.data(), width}, expert_rows_.data());
    rows_for(count, run.threads, [&](std::int64_t first, std::int64_t end) {
      for (std::int64_t i = first; i < end; ++i)
        run.steps.activate[model_.activation](up_.data() + i * width, F, up_.data() + i * width);
    });
    quant::multiply(up_.data(), width, count, matrix(down.weight),
                    {expert_out_.data(), D, down.bias, false}, workspace_, run.base, run.threads);
    adapt(run, number, change_of_expert(e, kDown),
          {up_.data(), width, count, expert_out_.data(), D}, expert_rows_.data());
    for (std::int64_t i = 0; i < count; ++i)
      run.steps.add_scaled(expert_out_.data() + i * D, D, expert_gates_[i],
                           sums + expert_rows_[i] * D);
  }
  if (ranks_ == nullptr) return;
  share(run, [&](std::int64_t first, std::int64_t some, float* part) {
    std::memcpy(part, sums + first * D, some * D * sizeof(float));
  });
}

void Decoder::results(const Run& run) {
  const std::int64_t D = model_.hidden, count = run.batch.logits;
  if (count == 0) return;
  float* const last = run.batch.out_hidden != nullptr ? run.batch.out_hidden : normed_.data();
  rows_for(count, run.threads, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t i = first; i < end; ++i) {
      const float* const x = hidden_.data() + run.batch.wanted[i] * D;
      const oarlock_decoder_norm& given = model_.final_norm;
      if (model_.layer_norm != 0)
        run.steps.layer_norm(x, D, given.weight, given.bias, model_.epsilon, last + i * D);
      else
        run.steps.rms_norm(x, D, given.weight, model_.epsilon, last + i * D);
    }
  });
  if (ranks_ != nullptr && run.batch.out_hidden == nullptr) return gather(run, last);
  if (run.batch.out_logits != nullptr)
    quant::multiply(last, D, count, matrix(model_.head),
                    {run.batch.out_logits, model_.vocab, nullptr, false}, workspace_, run.base,
                    run.threads);
}

// All ranks tell the sizes that must be alike, and their parts of the head.
void Decoder::agree() {
  constexpr int kSizes = 6;
  static const char* const kNames[kSizes] = {"hidden",     "vocab",   "layers",
                                             "max_length", "experts", "most_rows"};
  const std::int64_t own[kSizes + 1] = {model_.hidden,     model_.vocab,   model_.layers,
                                        model_.max_length, model_.experts, most_rows_,
                                        model_.head.outputs};
  const std::int32_t count = ranks_->count();
  const std::int64_t widest = std::max<std::int64_t>(model_.hidden, model_.head.outputs);
  check(widest * std::int64_t{sizeof(float)} <= ranks_->slot_bytes(),
        "slot_bytes must hold " + std::to_string(widest) + " floats, a row of a part");
  std::memcpy(ranks_->begin(), own, sizeof own);
  ranks_->give(sizeof own, ranks::To::all);
  const std::vector<std::int64_t> bytes(count, sizeof own);
  const void* const* const parts = ranks_->take(ranks::To::all, bytes.data());
  std::int64_t sum = 0;
  for (std::int32_t r = 0; r < count; ++r) {
    std::int64_t theirs[kSizes + 1];
    std::memcpy(theirs, parts[r], sizeof theirs);
    for (int i = 0; i < kSizes; ++i)
      check(theirs[i] == own[i], std::string(kNames[i]) + " must be alike on all ranks, but is " +
                                     std::to_string(theirs[i]) + " on rank " + std::to_string(r) +
                                     " and " + std::to_string(own[i]) + " here");
    head_widths_.push_back(theirs[kSizes]);
    sum += theirs[kSizes];
  }
  ranks_->done();
  check(sum == model_.vocab, "parts of the head must have " + std::to_string(model_.vocab) +
                                 " outputs together, not " + std::to_string(sum));
}

// hidden += x W + bias + (x A) B, of all ranks where there are several.
void Decoder::add_product(const Run& run, const oarlock_decoder_linear& given, const float* x,
                          std::int64_t stride, std::int64_t layer, Change change) {
  const std::int64_t D = model_.hidden;
  if (run.split) ranks_->progress();
  const auto multiply = [&](std::int64_t first, std::int64_t count, float* out, bool accumulate) {
    const float* const some = x + first * stride;
    quant::multiply(some, stride, count, matrix(given.weight), {out, D, given.bias, accumulate},
                    workspace_, run.base, run.threads);
    adapt(run, layer, change, {some, stride, count, out, D}, nullptr, first);
  };
  if (ranks_ == nullptr) return multiply(run.first, run.rows, hidden_.data() + run.first * D, true);
  share(run, [&](std::int64_t first, std::int64_t count, float* part) {
    multiply(first, count, part, false);
  });
}

// Two halves of a large batch where sums travel: those of one do so while the other is computed. The cut is at a
// tile's beginning at all ranks, whatever their heads.
std::vector<Decoder::Run> Decoder::split(const Run& run) const {
  if (ranks_ == nullptr || !ranks_->travels() || run.rows < kRowsToSplit) return {run};
  std::int64_t cut = run.rows, row = 0;
  for (std::int64_t s = 0; s < run.batch.sequences; row += run.batch.counts[s++]) {
    const std::int64_t half = std::max<std::int64_t>(0, (run.rows + 1) / 2 - row);
    const std::int64_t inside = (half + kMostQueries - 1) / kMostQueries * kMostQueries;
    if (inside < run.batch.counts[s]) {
      cut = row + inside;
      break;
    }
  }
  const std::int64_t larger = std::max(cut, run.rows - cut) * model_.hidden;
  if (cut == run.rows || larger * std::int64_t{sizeof(float)} > ranks_->slot_bytes()) return {run};
  Run before = run, after = run;
  before.split = after.split = true;
  before.rows = after.first = cut;
  after.rows = run.rows - cut;
  const auto begins = [&](const Tile& tile) { return tile.row < cut; };
  before.tiles = std::partition_point(tiles_.begin(), tiles_.end(), begins) - tiles_.begin();
  after.tile = before.tiles;
  after.tiles = run.tiles - before.tiles;
  return {before, after};
}

// hidden += the sums of all ranks; write(first, rows, part) this rank's. They are added at once, or by `settle`.
template <typename Write>
void Decoder::share(const Run& run, const Write& write) {
  const std::int64_t D = model_.hidden;
  if (run.split) {
    write(run.first, run.rows, static_cast<float*>(ranks_->begin()));
    return ranks_->give(run.rows * D * std::int64_t{sizeof(float)}, ranks::To::all);
  }
  ranks::sum(
      *ranks_, run.rows, D,
      [&](std::int64_t first, std::int64_t count, float* part) {
        write(run.first + first, count, part);
      },
      [&](std::int64_t first, std::int64_t count, const float* const* parts) {
        add_parts(run, run.first + first, count, parts);
      });
}

void Decoder::settle(const Run& run) {
  if (!run.split) return;
  const std::vector<std::int64_t> bytes(
      ranks_->count(), run.rows * model_.hidden * std::int64_t{sizeof(float)});
  const void* const* const parts = ranks_->take(ranks::To::all, bytes.data());
  add_parts(run, run.first, run.rows, reinterpret_cast<const float* const*>(parts));
  ranks_->done();
}

// In the order of ranks, so that all get the same bits.
void Decoder::add_parts(const Run& run, std::int64_t first, std::int64_t rows,
                        const float* const* parts) {
  const std::int64_t D = model_.hidden;
  float* const hidden = hidden_.data() + first * D;
  rows_for(rows, run.threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      for (std::int32_t r = 0; r < ranks_->count(); ++r)
        run.steps.add_scaled(parts[r] + row * D, D, 1.0f, hidden + row * D);
  });
}

// Logits of all ranks' parts of the head at the first rank.
void Decoder::gather(const Run& run, const float* last) {
  const std::int64_t D = model_.hidden, count = run.batch.logits;
  const std::int64_t own = model_.head.outputs;
  const std::int64_t widest = *std::max_element(head_widths_.begin(), head_widths_.end());
  const std::int64_t most = ranks_->slot_bytes() / (widest * std::int64_t{sizeof(float)});
  const bool first_rank = ranks_->rank() == 0;
  std::vector<std::int64_t> bytes(ranks_->count());
  for (std::int64_t first = 0; first < count; first += most) {
    const std::int64_t rows = std::min(most, count - first);
    float* const part = static_cast<float*>(ranks_->begin());
    float* const logits = run.batch.out_logits + first * model_.vocab;
    if (own > 0)
      quant::multiply(last + first * D, D, rows, matrix(model_.head),
                      {first_rank ? logits : part, first_rank ? model_.vocab : own}, workspace_,
                      run.base, run.threads);
    for (std::size_t r = 0; r < bytes.size(); ++r)
      bytes[r] = r == 0 ? 0 : rows * head_widths_[r] * std::int64_t{sizeof(float)};
    ranks_->give(bytes[ranks_->rank()], ranks::To::first);
    const void* const* const parts = ranks_->take(ranks::To::first, bytes.data());
    if (first_rank) {
      std::int64_t column = own;
      for (std::size_t r = 1; r < bytes.size(); ++r) {
        const std::int64_t width = head_widths_[r];
        for (std::int64_t row = 0; row < rows; ++row)
          std::memcpy(logits + row * model_.vocab + column,
                      static_cast<const float*>(parts[r]) + row * width, width * sizeof(float));
        column += width;
      }
    }
    ranks_->done();
  }
}

}  // namespace oarlock::decoder
