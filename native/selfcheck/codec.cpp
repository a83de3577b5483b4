// Gradient codes: what is decoded and what stays add up, and both have the same bits on every path.

#include <algorithm>
#include <cmath>

#include "check.h"
#include "codec/options.h"

extern "C" {
#define OARLOCK_CODE(name)                                                                        \
  std::int32_t oarlock_codec_##name##_encode(const oarlock_tensors*, const oarlock_tensors*,      \
                                             const oarlock_tensors*, const oarlock_codec_options*, \
                                             std::int32_t);                                       \
  std::int32_t oarlock_codec_##name##_add(const oarlock_tensors*, const oarlock_tensors*,         \
                                          const oarlock_tensors*, const oarlock_codec_options*,   \
                                          std::int32_t);
OARLOCK_CODE(chunk_topk)
#undef OARLOCK_CODE
#define OARLOCK_CODE(name)                                                                        \
  std::int32_t oarlock_codec_##name##_encode(const oarlock_tensors*, const oarlock_tensors*,      \
                                             const oarlock_tensors*, const oarlock_tensors*,      \
                                             const oarlock_codec_options*, std::int32_t);         \
  std::int32_t oarlock_codec_##name##_add(const oarlock_tensors*, const oarlock_tensors*,         \
                                          const oarlock_tensors*, const oarlock_codec_options*,   \
                                          std::int32_t);                                          \
  std::int32_t oarlock_codec_##name##_write(const oarlock_tensors*, const oarlock_tensors*,       \
                                            const oarlock_tensors*, const oarlock_codec_options*, \
                                            std::int32_t);
OARLOCK_CODE(blocks)
OARLOCK_CODE(signs)
#undef OARLOCK_CODE
std::int32_t oarlock_codec_accumulate(const oarlock_tensors*, const oarlock_tensors*,
                                      const oarlock_codec_options*, std::int32_t);
std::int32_t oarlock_codec_bf16_encode(const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_tensors*, const oarlock_codec_options*,
                                       std::int32_t);
std::int32_t oarlock_codec_bf16_add(const oarlock_tensors*, const oarlock_tensors*,
                                    const oarlock_codec_options*, std::int32_t);
std::int32_t oarlock_codec_bf16_write(const oarlock_tensors*, const oarlock_tensors*,
                                      const oarlock_codec_options*, std::int32_t);
std::int32_t oarlock_codec_kth_magnitude(const oarlock_tensors*, const oarlock_codec_options*,
                                         float*, std::int32_t);
std::int32_t oarlock_codec_select(const oarlock_tensors*, const oarlock_tensors*,
                                  const oarlock_tensors*, const oarlock_codec_options*,
                                  std::int64_t*, std::int32_t);
std::int32_t oarlock_codec_select_add(const oarlock_tensors*, const oarlock_tensors*,
                                      const oarlock_tensors*, const oarlock_codec_options*,
                                      std::int32_t);
std::int32_t oarlock_codec_random_k(const oarlock_tensors*, const oarlock_tensors*,
                                    const oarlock_codec_options*, std::int32_t);
std::int32_t oarlock_codec_random_k_add(const oarlock_tensors*, const oarlock_tensors*,
                                        const oarlock_codec_options*, std::int32_t);
std::int32_t oarlock_codec_pack_bits(const oarlock_tensors*, const oarlock_tensors*,
                                     const oarlock_codec_options*, std::int32_t);
std::int32_t oarlock_codec_unpack_bits(const oarlock_tensors*, const oarlock_tensors*,
                                       const oarlock_codec_options*, std::int32_t);
std::int32_t oarlock_codec_orthogonalise(const oarlock_tensors*, const oarlock_codec_options*,
                                         std::int32_t);
std::int32_t oarlock_codec_low_rank_take(const oarlock_tensors*, const oarlock_tensors*,
                                         const oarlock_tensors*, const oarlock_tensors*,
                                         const oarlock_tensors*, const oarlock_tensors*,
                                         const oarlock_codec_options*, std::int32_t);
std::int32_t oarlock_codec_low_rank_back(const oarlock_tensors*, const oarlock_tensors*,
                                         const oarlock_tensors*, const oarlock_codec_options*,
                                         std::int32_t);
std::int32_t oarlock_codec_low_rank_product(const oarlock_tensors*, const oarlock_tensors*,
                                            const oarlock_tensors*, const oarlock_codec_options*,
                                            std::int32_t);
std::int32_t oarlock_codec_dct(const oarlock_tensors*, const oarlock_tensors*,
                               const oarlock_codec_options*, std::int32_t);
}

namespace {

using namespace selfcheck;
using Floats = std::vector<float>;
using Bytes = std::vector<std::uint8_t>;
using Given = const oarlock_tensors*;

constexpr std::int64_t kCount = 70001;  // several parts, and a rest everywhere
const oarlock_tensors kNoGradients{"gradients", nullptr, 0};
constexpr Given kNone = &kNoGradients;
constexpr std::int32_t kUint16 = 1 << 8 | 16, kUint32 = 1 << 8 | 32;

// One tensor over a vector.
class Flat : public One {
 public:
  Flat(const char* name, Floats& x)
      : One(name, x.data(), oarlock::kFloat32, {static_cast<std::int64_t>(x.size())}) {}
  Flat(const char* name, Bytes& x)
      : One(name, x.data(), kUint8, {static_cast<std::int64_t>(x.size())}) {}
  Flat(const char* name, std::vector<std::uint16_t>& x)
      : One(name, x.data(), kUint16, {static_cast<std::int64_t>(x.size())}) {}
  Flat(const char* name, std::vector<std::uint32_t>& x)
      : One(name, x.data(), kUint32, {static_cast<std::int64_t>(x.size())}) {}
};

oarlock_codec_options options() {
  oarlock_codec_options o{};
  o.block = 256;
  o.most = -1;
  o.keep = 1;
  o.weight = o.decay = 1;
  o.bits = 8;
  return o;
}

// encode(acc, codes, numbers) and add(codes, numbers, out) for several numbers of threads.
template <typename Code, typename Encode, typename Add>
void code(const std::string& name, std::int64_t codes, std::int64_t numbers_of_code,
          const Encode& encode, const Add& add) {
  for (const std::int32_t threads : {1, 3}) {
    Floats acc = numbers(kCount, 1), values(numbers_of_code), out(kCount);
    const Floats before = acc;
    std::vector<Code> code(codes);
    const Flat code_list("code", code), values_list("values", values), out_list("out", out);
    require(encode(Flat("acc", acc), code_list, values_list, threads) == OARLOCK_OK, name);
    require(add(code_list, values_list, out_list, threads) == OARLOCK_OK, name + " add");
    std::int64_t wrong = 0;
    for (std::int64_t i = 0; i < kCount; ++i) wrong += before[i] - out[i] != acc[i];
    require(wrong == 0, name + ": what stays is not what was not sent");
    same_bits("codec " + name, hash_of(code, hash_of(values, hash_of(acc))));
  }
}

// The same where what is coded comes as gradients, encode(acc, gradients, codes, numbers), and the mean
// goes to targets, write(codes, numbers, targets), in which nothing lies at the edge of a block.
template <typename Code, typename Encode, typename Write>
void rows(const std::string& name, std::int64_t codes, std::int64_t numbers_of_code,
          const Encode& encode, const Write& write) {
  const std::vector<std::int64_t> sizes = {1, 70, 0, 30001, kCount - 30072};
  for (const std::int32_t threads : {1, 3}) {
    Floats acc(kCount), together = numbers(kCount, 1), values[2];
    std::vector<Code> code[2];
    std::vector<Floats> gradients, targets;
    auto from = together.begin();
    for (const std::int64_t size : sizes) {
      gradients.emplace_back(from, from + size);
      targets.emplace_back(size);
      from += size;
    }
    Floats* const added[] = {&acc, &together};
    std::vector<Floats> none;
    for (int i = 0; i < 2; ++i) {
      values[i].resize(numbers_of_code), code[i].resize(codes);
      const List<float> given("gradients", i == 0 ? gradients : none);
      require(encode(Flat("acc", *added[i]), given, Flat("code", code[i]),
                     Flat("values", values[i]), threads) == OARLOCK_OK, name + " of gradients");
    }
    require(code[0] == code[1] && values[0] == values[1] && acc == together,
            name + ": gradients are not coded as their sum");
    require(write(Flat("code", code[0]), Flat("values", values[0]), List<float>("targets", targets),
                  threads) == OARLOCK_OK, name + " to targets");
    std::int64_t wrong = 0, at = 0;
    const Floats before = numbers(kCount, 1);
    for (const Floats& target : targets)
      for (const float x : target) wrong += before[at] - x != acc[at], ++at;
    require(wrong == 0, name + ": targets are not what was sent");
  }
}

void blocks() {
  for (const std::int32_t bits : {8, 4, 2})
    for (const std::int64_t block : {24, 256})
      for (const std::int32_t stochastic : {0, 1}) {
        oarlock_codec_options o = options();
        o.bits = bits, o.block = block, o.stochastic = stochastic, o.seed = 7;
        code<std::uint8_t>(
            std::to_string(bits) + " bits " + std::to_string(block) + (stochastic ? " random" : ""),
            (kCount * bits + 7) / 8, (kCount + block - 1) / block,
            [&](Given acc, Given codes, Given scales, std::int32_t threads) {
              return oarlock_codec_blocks_encode(acc, kNone, codes, scales, &o, threads);
            },
            [&](Given codes, Given scales, Given out, std::int32_t threads) {
              return oarlock_codec_blocks_add(codes, scales, out, &o, threads);
            });
        rows<std::uint8_t>(
            std::to_string(bits) + " bits", (kCount * bits + 7) / 8, (kCount + block - 1) / block,
            [&](Given acc, Given gradients, Given codes, Given scales, std::int32_t threads) {
              return oarlock_codec_blocks_encode(acc, gradients, codes, scales, &o, threads);
            },
            [&](Given codes, Given scales, Given targets, std::int32_t threads) {
              return oarlock_codec_blocks_write(codes, scales, targets, &o, threads);
            });
      }
}

void signs() {
  for (const std::int64_t block : {24, 256}) {
    oarlock_codec_options o = options();
    o.block = block;
    code<std::uint8_t>(
        "signs " + std::to_string(block), (kCount + 7) / 8, (kCount + block - 1) / block,
        [&](Given acc, Given bits, Given scales, std::int32_t threads) {
          return oarlock_codec_signs_encode(acc, kNone, bits, scales, &o, threads);
        },
        [&](Given bits, Given scales, Given out, std::int32_t threads) {
          return oarlock_codec_signs_add(bits, scales, out, &o, threads);
        });
    rows<std::uint8_t>(
        "signs", (kCount + 7) / 8, (kCount + block - 1) / block,
        [&](Given acc, Given gradients, Given bits, Given scales, std::int32_t threads) {
          return oarlock_codec_signs_encode(acc, gradients, bits, scales, &o, threads);
        },
        [&](Given bits, Given scales, Given targets, std::int32_t threads) {
          return oarlock_codec_signs_write(bits, scales, targets, &o, threads);
        });
  }
}

void largest() {
  for (const std::int64_t k : {1, 32, 2000}) {
    oarlock_codec_options o = options();
    o.block = 4096, o.k = k;
    const std::int64_t whole = kCount / o.block, rest = kCount % o.block;
    const std::int64_t entries = whole * k + std::min(k, rest);
    code<std::uint16_t>(
        "largest of chunks " + std::to_string(k), entries, entries,
        [&](Given acc, Given indices, Given values, std::int32_t threads) {
          return oarlock_codec_chunk_topk_encode(acc, indices, values, &o, threads);
        },
        [&](Given indices, Given values, Given out, std::int32_t threads) {
          return oarlock_codec_chunk_topk_add(indices, values, out, &o, threads);
        });
    o.most = k;
    code<std::uint32_t>(
        "largest " + std::to_string(k), k, k,
        [&](Given acc, Given indices, Given values, std::int32_t threads) {
          std::int64_t counts[3];
          require(oarlock_codec_kth_magnitude(acc, &o, &o.threshold, threads) == OARLOCK_OK, "kth");
          const auto done = oarlock_codec_select(acc, indices, values, &o, counts, threads);
          require(counts[0] == k, "select takes as many as it is asked for");
          return done;
        },
        [&](Given indices, Given values, Given out, std::int32_t threads) {
          return oarlock_codec_select_add(indices, values, out, &o, threads);
        });
  }
}

void single() {
  const oarlock_codec_options o = options();
  code<std::uint16_t>(
      "bf16", kCount, 0,
      [&](Given acc, Given codes, Given, std::int32_t threads) {
        return oarlock_codec_bf16_encode(acc, kNone, codes, &o, threads);
      },
      [&](Given codes, Given, Given out, std::int32_t threads) {
        return oarlock_codec_bf16_add(codes, out, &o, threads);
      });
  rows<std::uint16_t>(
      "bf16", kCount, 0,
      [&](Given acc, Given gradients, Given codes, Given, std::int32_t threads) {
        return oarlock_codec_bf16_encode(acc, gradients, codes, &o, threads);
      },
      [&](Given codes, Given, Given targets, std::int32_t threads) {
        return oarlock_codec_bf16_write(codes, targets, &o, threads);
      });
  code<std::uint16_t>(
      "random", 0, 999,
      [&](Given acc, Given, Given values, std::int32_t threads) {
        return oarlock_codec_random_k(acc, values, &o, threads);
      },
      [&](Given, Given values, Given out, std::int32_t threads) {
        return oarlock_codec_random_k_add(values, out, &o, threads);
      });
  oarlock_codec_options decayed = options();
  decayed.weight = 0.3f, decayed.decay = 0.9f;
  Floats acc = numbers(kCount, 1), gradient = numbers(kCount, 2);
  const Floats before = acc;
  require(oarlock_codec_accumulate(Flat("acc", acc), Flat("gradient", gradient), &decayed, 3) ==
              OARLOCK_OK, "accumulate");
  for (std::int64_t i = 0; i < kCount; ++i)
    close(acc[i], 0.9 * before[i] + 0.3 * gradient[i], 1e-6, "accumulate");
  same_bits("codec accumulate", hash_of(acc));
}

void bits() {
  for (std::int32_t width = 1; width <= 16; ++width) {
    oarlock_codec_options o = options();
    o.bits = width;
    std::vector<std::uint16_t> values(kCount), back(kCount);
    const Floats random = numbers(kCount, 3);
    for (std::int64_t i = 0; i < kCount; ++i)
      values[i] = static_cast<std::uint16_t>((random[i] + 1) / 2 * static_cast<float>(1 << width));
    Bytes packed((kCount * width + 7) / 8);
    require(oarlock_codec_pack_bits(Flat("values", values), Flat("out", packed), &o, 3) ==
                OARLOCK_OK, "pack_bits");
    require(oarlock_codec_unpack_bits(Flat("packed", packed), Flat("values", back), &o, 3) ==
                OARLOCK_OK, "unpack_bits");
    require(values == back, "bits come back");
    same_bits("codec bits " + std::to_string(width), hash_of(packed));
  }
}

void orthogonal() {
  constexpr std::int64_t rows = 1500, columns = 9;
  oarlock_codec_options o = options();
  o.eps = 1e-6;
  for (const std::int32_t threads : {1, 3}) {
    Floats a = numbers(rows * columns, 4);
    for (std::int64_t row = 0; row < rows; ++row) a[row * columns + 4] = 2 * a[row * columns];
    require(oarlock_codec_orthogonalise(
                One("matrix", a.data(), oarlock::kFloat32, {rows, columns}), &o, threads) ==
                OARLOCK_OK, "orthogonalise");
    for (std::int64_t i = 0; i < columns; ++i)
      for (std::int64_t j = 0; j <= i; ++j) {
        double product = 0;
        for (std::int64_t row = 0; row < rows; ++row)
          product += double{a[row * columns + i]} * a[row * columns + j];
        close(product, i == j, 1e-6, "orthogonal columns");
      }
    same_bits("codec orthogonalise", hash_of(a));
  }
}

void low_rank() {
  constexpr std::int64_t rows = 301, columns = 1043, rank = 5, sent = 3;
  const oarlock_codec_options o = options();
  const auto two = [](const char* name, Floats& a, std::int64_t height, std::int64_t width) {
    return One(name, a.data(), oarlock::kFloat32, {height, width});
  };
  for (const std::int32_t threads : {1, 3}) {
    const Floats before = numbers(rows * columns, 6), gradient = numbers(rows * columns, 7);
    Floats acc = before, add = gradient, left = numbers(rows * sent, 8), back(columns * rank),
           right = numbers(columns * sent, 9), onto = numbers(columns * rank, 10),
           out(rows * rank), product(rows * columns);
    require(oarlock_codec_low_rank_take(two("acc", acc, rows, columns),
                                        two("gradient", add, rows, columns),
                                        two("left", left, rows, sent),
                                        two("right", right, columns, sent),
                                        two("onto", onto, columns, rank),
                                        two("out", out, rows, rank), &o, threads) == OARLOCK_OK,
            "low_rank_take");
    require(oarlock_codec_low_rank_product(two("left", left, rows, sent),
                                           two("right", right, columns, sent),
                                           two("out", product, rows, columns), &o, threads) ==
                OARLOCK_OK, "low_rank_product");
    require(oarlock_codec_low_rank_back(two("acc", acc, rows, columns),
                                        two("left", out, rows, rank),
                                        two("out", back, columns, rank), &o, threads) ==
                OARLOCK_OK, "low_rank_back");
    for (std::int64_t i = 0; i < rows * columns; ++i)
      require(acc[i] == (before[i] - product[i]) + gradient[i], "what low_rank_take leaves");
    for (std::int64_t row = 0; row < rows; ++row)
      for (std::int64_t k = 0; k < rank; ++k) {
        double sum = 0;
        for (std::int64_t j = 0; j < columns; ++j)
          sum += double{acc[row * columns + j]} * onto[j * rank + k];
        close(out[row * rank + k], sum, 1e-4, "low_rank_take projects");
      }
    for (std::int64_t j = 0; j < columns; ++j)
      for (std::int64_t k = 0; k < rank; ++k) {
        double sum = 0;
        for (std::int64_t row = 0; row < rows; ++row)
          sum += double{acc[row * columns + j]} * out[row * rank + k];
        close(back[j * rank + k], sum, 1e-3, "low_rank_back");
      }
    same_bits("codec low rank", hash_of(acc, hash_of(out, hash_of(back, hash_of(product)))));
  }
}

void cosines() {
  for (const std::int64_t chunk : {8, 33, 64, 256}) {
    oarlock_codec_options o = options();
    o.block = chunk;
    Floats x = numbers(kCount, 5), out(kCount), back(kCount);
    require(oarlock_codec_dct(Flat("x", x), Flat("out", out), &o, 3) == OARLOCK_OK, "dct");
    o.inverse = 1;
    require(oarlock_codec_dct(Flat("x", out), Flat("out", back), &o, 1) == OARLOCK_OK, "inverse");
    const double pi = std::acos(-1.0);
    for (std::int64_t k = 0; k < chunk; ++k) {
      double sum = 0;
      for (std::int64_t i = 0; i < chunk; ++i)
        sum += x[i] * std::cos(pi * static_cast<double>(k * (2 * i + 1)) / (2.0 * chunk));
      close(out[k], sum * std::sqrt((k == 0 ? 1.0 : 2.0) / chunk), 1e-5, "dct");
    }
    for (std::int64_t i = 0; i < kCount; ++i) close(back[i], x[i], 1e-5, "dct and back");
    same_bits("codec dct " + std::to_string(chunk), hash_of(out, hash_of(back)));
  }
}

const Register kBlocks("codec blocks", blocks), kSigns("codec signs", signs),
    kLargest("codec largest", largest), kSingle("codec single", single), kBits("codec bits", bits),
    kOrthogonal("codec orthogonal", orthogonal), kLowRank("codec low rank", low_rank),
    kCosines("codec cosines", cosines);

}  // namespace
