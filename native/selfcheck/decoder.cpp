// Whole decoders against scalar code in double precision: formats of weights and of pages, families, and the same bits
// however rows are batched.

#include <cstring>

#include "check.h"
#include "decoder/cache.h"
#include "decoder/kernels.h"
#include "decoder/options.h"
#include "rounding.h"

extern "C" {
std::int32_t oarlock_decoder_create(const oarlock_decoder_model*, std::int64_t, void*, void**);
void oarlock_decoder_destroy(void*);
std::int64_t oarlock_decoder_page_bytes(const void*, std::int32_t);
std::int32_t oarlock_decoder_forward(void*, const oarlock_decoder_cache*,
                                     const oarlock_decoder_batch*, std::int32_t, std::int32_t);
}

namespace {

using namespace selfcheck;
using oarlock::decoder::Activation;
using oarlock::decoder::CacheFormat;

struct Family {
  const char* name;
  int heads, kv_heads, head_size, rotary;
  bool halves, layer_norm, bias, slopes;
  Activation activation;
  int window;
};

const Family kFamilies[] = {
    {"llama", 4, 2, 16, 16, false, false, false, false, Activation::swiglu, 0},
    {"qwen2", 6, 3, 12, 8, true, false, true, false, Activation::swiglu, 0},
    {"mistral", 4, 1, 8, 8, false, false, false, false, Activation::swiglu, 11},
    {"gpt2", 3, 3, 20, 0, false, true, true, false, Activation::gelu_tanh, 0},
    {"bloom", 4, 4, 8, 0, false, true, true, true, Activation::gelu, 0},
    {"many queries", 24, 2, 4, 0, false, false, false, false, Activation::relu, 0},
};
constexpr int kHidden = 40, kIntermediate = 50, kVocab = 23, kLength = 64, kTokens = 37, kLayers = 2;
constexpr float kEpsilon = 1e-5f;

// A random weight, its bias, and both in double precision.
struct Linear {
  Packed packed;
  Floats bias, weights;  // [outputs, inputs]

  Linear(std::int64_t inputs, std::int64_t outputs, Format format, bool with_bias, std::uint32_t seed)
      : packed(scaled(inputs, outputs, seed), inputs, outputs, format),
        bias(with_bias ? numbers(outputs, seed + 1) : Floats{}), weights(packed.unpacked()) {}

  static Floats scaled(std::int64_t inputs, std::int64_t outputs, std::uint32_t seed) {
    Floats out = numbers(inputs * outputs, seed);
    for (float& x : out) x *= 2.0f / std::sqrt(static_cast<float>(inputs));
    return out;
  }
  oarlock_decoder_matrix matrix() const {
    return {packed.data, packed.inputs, packed.outputs, static_cast<std::int32_t>(packed.format)};
  }
  oarlock_decoder_linear argument() const { return {matrix(), bias.empty() ? nullptr : bias.data()}; }

  Doubles operator()(const Doubles& x) const {
    const Doubles taken = as_taken(Floats(x.begin(), x.end()), 1, packed.inputs, packed.format);
    Doubles out(packed.outputs);
    for (std::int64_t n = 0; n < packed.outputs; ++n) {
      out[n] = bias.empty() ? 0 : bias[n];
      for (std::int64_t k = 0; k < packed.inputs; ++k) out[n] += taken[k] * weights[n * packed.inputs + k];
    }
    return out;
  }
};

struct Norm {
  Floats weight, bias;
  Norm(bool with_bias, std::uint32_t seed)
      : weight(numbers(kHidden, seed)), bias(with_bias ? numbers(kHidden, seed + 1) : Floats{}) {
    for (float& x : weight) x = 1 + 0.2f * x;
  }
  oarlock_decoder_norm argument() const { return {weight.data(), bias.empty() ? nullptr : bias.data()}; }

  Doubles operator()(const Doubles& x, bool layer_norm) const {
    double mean = 0, squares = 0;
    if (layer_norm)
      for (const double v : x) mean += v / kHidden;
    for (const double v : x) squares += (v - mean) * (v - mean) / kHidden;
    Doubles out(kHidden);
    for (int i = 0; i < kHidden; ++i)
      out[i] = (x[i] - mean) / std::sqrt(squares + kEpsilon) * weight[i] + (bias.empty() ? 0 : bias[i]);
    return out;
  }
};

struct Layer {
  Norm attention_norm, feed_forward_norm;
  Linear qkv, out, up, down;

  Layer(const Family& f, Format format, std::uint32_t seed)
      : attention_norm(f.layer_norm, seed), feed_forward_norm(f.layer_norm, seed + 10),
        qkv(kHidden, (f.heads + 2 * f.kv_heads) * f.head_size, format, f.bias, seed + 20),
        out(f.heads * f.head_size, kHidden, format, f.bias, seed + 30),
        up(kHidden, kIntermediate * (f.activation == Activation::swiglu ? 2 : 1), format, f.bias, seed + 40),
        down(kIntermediate, kHidden, format, f.bias, seed + 50) {}
  oarlock_decoder_layer argument() const {
    return {attention_norm.argument(), feed_forward_norm.argument(), qkv.argument(), out.argument(),
            up.argument(), down.argument(), {}, nullptr};
  }
};

double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::swiglu: return x / (1 + std::exp(-x));
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::gelu: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::relu: return std::max(x, 0.0);
  }
  return x;
}

// A key or value as pages hold it.
void as_cached(double* x, int count, CacheFormat format) {
  Floats values(x, x + count);
  if (format == CacheFormat::int8) round_group(values.data(), count);
  for (int i = 0; i < count; ++i) {
    if (format == CacheFormat::bf16) {
      std::uint32_t bits;
      static_assert(sizeof bits == sizeof values[i]);
      std::memcpy(&bits, &values[i], sizeof bits);
      bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
      std::memcpy(&values[i], &bits, sizeof bits);
    }
    x[i] = values[i];
  }
}

struct Model {
  const Family& family;
  Linear table;
  std::vector<Layer> layers;
  Norm final_norm;
  Floats cos, sin, slopes;
  std::vector<std::int32_t> tokens;

  Model(const Family& f, Format format)
      : family(f), table(kHidden, kVocab, format, false, 7), final_norm(f.layer_norm, 9) {
    for (std::uint32_t i = 0; i < kLayers; ++i) layers.emplace_back(f, format, 100 * (i + 1));
    for (int position = 0; position < kLength; ++position)
      for (int i = 0; i < f.rotary / 2; ++i) {
        const double angle = position * std::pow(50.0, -2.0 * i / f.rotary);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    for (int h = 0; f.slopes && h < f.heads; ++h) slopes.push_back(std::ldexp(1.0f, -h - 1));
    for (int i = 0; i < kTokens; ++i) tokens.push_back(i * 7 % kVocab);
  }

  void turn(double* x, int position) const {
    const int pairs = family.rotary / 2;
    for (int i = 0; i < pairs; ++i) {
      double &a = x[family.halves ? i : 2 * i], &b = x[family.halves ? i + pairs : 2 * i + 1];
      const double c = cos[position * pairs + i], s = sin[position * pairs + i], first = a;
      a = first * c - b * s;
      b = first * s + b * c;
    }
  }

  // Logits of all tokens, [kTokens, kVocab].
  Doubles forward(CacheFormat format) const {
    const Family& f = family;
    const int K = f.head_size, group = f.heads / f.kv_heads;
    std::vector<Doubles> x;
    for (const std::int32_t token : tokens)
      x.emplace_back(table.weights.begin() + token * kHidden, table.weights.begin() + (token + 1) * kHidden);
    for (const Layer& layer : layers) {
      std::vector<Doubles> qkv;
      for (int t = 0; t < kTokens; ++t) {
        qkv.push_back(layer.qkv(layer.attention_norm(x[t], f.layer_norm)));
        for (int h = 0; h < f.heads + 2 * f.kv_heads; ++h) {
          if (h < f.heads + f.kv_heads) turn(qkv[t].data() + h * K, t);
          if (h >= f.heads) as_cached(qkv[t].data() + h * K, K, format);
        }
      }
      for (int t = 0; t < kTokens; ++t) {
        Doubles attended(f.heads * K);
        for (int h = 0; h < f.heads; ++h) {
          const int key = (f.heads + h / group) * K, value = key + f.kv_heads * K;
          const int first = f.window > 0 ? std::max(0, t + 1 - f.window) : 0;
          double sum = 0;
          for (int j = first; j <= t; ++j) {
            double score = 0;
            for (int d = 0; d < K; ++d) score += qkv[t][h * K + d] * qkv[j][key + d];
            score = score / std::sqrt(K) + (f.slopes ? slopes[h] * (j - t) : 0);
            sum += std::exp(score);
            for (int d = 0; d < K; ++d) attended[h * K + d] += std::exp(score) * qkv[j][value + d];
          }
          for (int d = 0; d < K; ++d) attended[h * K + d] /= sum;
        }
        const Doubles out = layer.out(attended);
        for (int i = 0; i < kHidden; ++i) x[t][i] += out[i];
        const Doubles up = layer.up(layer.feed_forward_norm(x[t], f.layer_norm));
        Doubles inner(kIntermediate);
        for (int i = 0; i < kIntermediate; ++i) {
          inner[i] = activated(f.activation, up[i]);
          if (f.activation == Activation::swiglu) inner[i] *= up[kIntermediate + i];
        }
        const Doubles down = layer.down(inner);
        for (int i = 0; i < kHidden; ++i) x[t][i] += down[i];
      }
    }
    Doubles logits;
    for (const Doubles& one : x) {
      const Doubles row = table(final_norm(one, f.layer_norm));
      logits.insert(logits.end(), row.begin(), row.end());
    }
    return logits;
  }

  // The same by the library, rows taken in parts of `part`.
  Floats run(CacheFormat format, int part, std::int32_t threads, bool base) const {
    const Family& f = family;
    std::vector<oarlock_decoder_layer> of_layer;
    for (const Layer& layer : layers) of_layer.push_back(layer.argument());
    oarlock_decoder_model m{};
    m.layers = kLayers, m.hidden = kHidden, m.heads = f.heads, m.kv_heads = f.kv_heads;
    m.head_size = f.head_size, m.intermediate = kIntermediate, m.vocab = kVocab;
    m.max_length = kLength, m.layer_norm = f.layer_norm, m.window = f.window;
    m.activation = static_cast<std::int32_t>(f.activation);
    m.rotary = f.rotary, m.rotary_halves = f.halves, m.epsilon = kEpsilon;
    m.attention_scale = 1.0f / std::sqrt(static_cast<float>(f.head_size));
    m.cos = f.rotary ? cos.data() : nullptr, m.sin = f.rotary ? sin.data() : nullptr;
    m.slopes = f.slopes ? slopes.data() : nullptr;
    m.embedding = m.head = table.matrix();
    m.final_norm = final_norm.argument();
    m.of_layer = of_layer.data();
    void* decoder = nullptr;
    Floats logits(kTokens * kVocab);
    if (oarlock_decoder_create(&m, part, nullptr, &decoder) != OARLOCK_OK) {
      fail(std::string("decoder create: ") + oarlock_last_error());
      return logits;
    }
    std::vector<std::uint8_t> memory(4 * oarlock_decoder_page_bytes(decoder, static_cast<std::int32_t>(format)));
    const oarlock_decoder_cache cache{memory.data(), 4, static_cast<std::int32_t>(format)};
    const std::int32_t pages[] = {2, 0, 3};
    std::vector<std::int32_t> wanted(part);
    for (int i = 0; i < part; ++i) wanted[i] = i;
    for (std::int32_t start = 0; start < kTokens; start += part) {
      const std::int32_t count = std::min(part, kTokens - start);
      const oarlock_decoder_batch batch{count, 1, 3, count, tokens.data() + start, &start, &count, pages, nullptr,
                                        wanted.data(), logits.data() + start * kVocab, nullptr};
      require(oarlock_decoder_forward(decoder, &cache, &batch, base, threads) == OARLOCK_OK,
              std::string("decoder forward: ") + oarlock_last_error());
    }
    oarlock_decoder_destroy(decoder);
    return logits;
  }
};

void check_model(const Family& family, Format format, CacheFormat cache) {
  static const char* const caches[] = {"fp32", "bf16", "int8"};
  const std::string name = std::string("decoder ") + family.name + " " +
                           kFormatNames[static_cast<int>(format)] + ", pages " +
                           caches[static_cast<int>(cache)];
  const Model model(family, format);
  const Doubles right = model.forward(cache);
  const Floats found = model.run(cache, kTokens, 1, false);
  // Rounding of rows, keys and values may fall to either side, and goes on from layer to layer.
  const bool exact = !oarlock::quant::has_codes(format) && cache == CacheFormat::fp32;
  double square = 0, wrong = 0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    square += right[i] * right[i] / right.size();
    wrong += (found[i] - right[i]) * (found[i] - right[i]) / right.size();
    if (exact) close(found[i], right[i], 1e-4, name);
  }
  close(std::sqrt(wrong / square), 0, 4e-3, name + ": relative error");
  require(found == model.run(cache, kTokens, 3, true), name + ": other bits on three threads");
  require(found == model.run(cache, 1, 1, false), name + ": other bits token by token");
  require(found == model.run(cache, 26, 2, false), name + ": other bits in two parts");
}

void formats() {
  for (int format = 0; format < oarlock::quant::kFormats; ++format)
    for (int cache = 0; cache < oarlock::decoder::kCacheFormats; ++cache)
      check_model(kFamilies[0], static_cast<Format>(format), static_cast<CacheFormat>(cache));
}

void families() {
  for (const Family& family : kFamilies)
    for (int cache = 0; cache < oarlock::decoder::kCacheFormats; ++cache)
      check_model(family, Format::fp32, static_cast<CacheFormat>(cache));
}

const Register kFormats("decoder formats", formats), kOfFamilies("decoder families", families);

}  // namespace
