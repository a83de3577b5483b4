#include "decoder/adapter.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "decoder/sizes.h"

namespace oarlock::decoder {
namespace {

quant::Matrix factor(const oarlock_decoder_matrix& given, const std::string& name) {
  const auto format = static_cast<quant::Format>(given.format);
  check(format == quant::Format::fp32 || format == quant::Format::bf16,
        name + " must be float32 or bfloat16");
  return matrix(given);
}

}  // namespace

Adapter::Adapter(const oarlock_decoder_adapter& given, const oarlock_decoder_model& m) {
  const std::int64_t D = m.hidden, HK = std::int64_t{m.heads} * m.head_size, F = m.intermediate;
  layers_.resize(m.layers);
  for (std::int64_t i = 0; i < m.layers; ++i) {
    const oarlock_decoder_adapter_layer& layer = given.of_layer[i];
    take(layer.qkv, D, qkv_width(m), "qkv", i);
    take(layer.out, HK, D, "out", i);
    if (m.experts == 0) {
      check(layer.experts == nullptr, "the model has no experts, but the adapter does");
      take(layer.up, D, up_width(m), "up", i);
      take(layer.down, F, D, "down", i);
      continue;
    }
    check(layer.up.a.packed == nullptr && layer.down.a.packed == nullptr,
          "the model has experts in place of up and down, which the adapter changes");
    for (std::int64_t e = 0; layer.experts != nullptr && e < m.experts; ++e) {
      take(layer.experts[2 * e], D, up_width(m), "up of an expert", i);
      take(layer.experts[2 * e + 1], F, D, "down of an expert", i);
    }
  }
}

void Adapter::take(const oarlock_decoder_low_rank& given, std::int64_t inputs,
                   std::int64_t outputs, const char* product, std::int64_t layer) {
  LowRank taken;
  if (given.a.packed != nullptr) {
    const std::string name =
        "the adapter's " + std::string(product) + " of layer " + std::to_string(layer);
    taken.a = factor(given.a, "a of " + name);
    check(taken.a.inputs == inputs && taken.a.outputs > 0,
          "a of " + name + " must have " + std::to_string(inputs) + " inputs, not " +
              std::to_string(taken.a.inputs));
    for (std::int64_t j = 0; j < given.parts; ++j) {
      const oarlock_decoder_low_rank_part& part = given.of_part[j];
      const Part one{factor(part.b, "b of " + name), part.rank, part.output};
      check(one.b.packed != nullptr && one.rank >= 0 && one.rank + one.b.inputs <= taken.a.outputs,
            "b of " + name + " has more ranks than a");
      check(one.output >= 0 && one.output + one.b.outputs <= outputs,
            "b of " + name + " reaches column " + std::to_string(one.output + one.b.outputs) +
                " of " + std::to_string(outputs));
      taken.parts.push_back(one);
    }
    ranks_ = std::max(ranks_, taken.a.outputs);
  }
  layers_[layer].push_back(std::move(taken));
}

void Adapter::add(std::int64_t layer, std::int64_t change, const Changed& rows, float* room,
                  quant::Workspace& workspace, bool base, std::int32_t threads) const {
  if (static_cast<std::size_t>(change) >= layers_[layer].size()) return;  // no expert is changed
  const LowRank& given = layers_[layer][change];
  if (given.a.packed == nullptr) return;
  const std::int64_t ranks = given.a.outputs;
  quant::multiply(rows.x, rows.x_stride, rows.rows, given.a, {room, ranks}, workspace, base,
                  threads);
  for (const Part& part : given.parts)
    quant::multiply(room + part.rank, ranks, rows.rows, part.b,
                    {rows.out + part.output, rows.stride, nullptr, true}, workspace, base, threads);
}

}  // namespace oarlock::decoder
