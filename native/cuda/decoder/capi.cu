// Entry points of a decoder's steps on a GPU. Numbers on the device that say where things are (pages, starts, counts,
// offsets, owners) are the caller's to get right: the host does not read them.

#include "core/device.cuh"
#include "core/error.h"
#include "core/launch.cuh"
#include "decoder/attend.cuh"
#include "decoder/gpu_options.h"
#include "decoder/steps.cuh"
#include "quant/operands.cuh"

namespace oarlock::cuda::decoder {
namespace {

constexpr std::int32_t kInt32 = 32;
constexpr float kLog2E = 1.44269504088896340736f;
constexpr std::int64_t kMostGrid = 65535;

void require(bool fits, const std::string& text) {
  if (!fits) throw BadArgument(text);
}

std::int64_t head_bytes_of(const oarlock_cuda_attention_options& o) {
  return oarlock::decoder::head_bytes(static_cast<CacheFormat>(o.format), o.head_size);
}

void check_options(const oarlock_cuda_attention_options& o) {
  require(o.format >= 0 && o.format < oarlock::decoder::kCacheFormats,
          "the cache's format is unknown: " + std::to_string(o.format));
  require(o.layers > 0 && o.layer >= 0 && o.layer < o.layers,
          "layer must be in [0, " + std::to_string(o.layers) + "), not " + std::to_string(o.layer));
  require(o.heads > 0 && o.kv_heads > 0 && o.heads % o.kv_heads == 0 && o.heads <= kMostGrid,
          "heads must be a multiple of kv_heads, not " + std::to_string(o.heads) + " and " +
              std::to_string(o.kv_heads));
  require(o.head_size > 0 && o.head_size <= kMostHeadSize && o.head_size % 8 == 0,
          "head_size must be a multiple of 8 up to " + std::to_string(kMostHeadSize) +
              " on a GPU, not " + std::to_string(o.head_size));
  require(o.rotary >= 0 && o.rotary <= o.head_size && o.rotary % 2 == 0,
          "rotary must be even and at most head_size, not " + std::to_string(o.rotary));
  require(o.window >= 0, "window must not be negative");
  require(o.least_rows > 0 && o.most_rows >= o.least_rows && o.most_length >= o.most_rows,
          "least_rows, most_rows and most_length must be positive and rise");
}

// What storing and attending have in common. `qkv` is written only where queries are turned.
struct Lists {
  const oarlock_tensors *qkv, *cache, *pages, *starts, *counts, *offsets, *owners;
};

Attention operands(const Lists& l, const oarlock_cuda_attention_options& o, Device device) {
  using oarlock::quant::matrix;
  using oarlock::quant::vector;
  check_options(o);
  const std::int64_t width = std::int64_t{o.heads + 2 * o.kv_heads} * o.head_size;
  Attention p{};
  p.qkv = quant::numbers(*l.qkv, -1, width, device);
  p.rows = l.qkv->items[0].shape[0];
  p.head_bytes = head_bytes_of(o);
  p.page_bytes = p.head_bytes * o.layers * o.kv_heads;
  const auto& cache = matrix(*l.cache, Access::write, {quant::kUint8}, -1, p.page_bytes, device);
  require(reinterpret_cast<std::uintptr_t>(cache.data) % 32 == 0,
          "cache must begin at a multiple of 32 bytes");
  p.memory = static_cast<std::uint8_t*>(cache.data) + p.head_bytes * o.kv_heads * o.layer;
  const auto& pages = matrix(*l.pages, Access::read, {kInt32}, -1, -1, device);
  p.sequences = pages.shape[0];
  p.most_pages = pages.shape[1];
  require(p.sequences <= kMostGrid, "there must be at most 65535 sequences, not " +
                                        std::to_string(p.sequences));
  require(p.most_pages * kPage >= o.most_length,
          "pages has " + std::to_string(p.most_pages) + " for each sequence, too few for " +
              std::to_string(o.most_length) + " positions");
  p.pages = static_cast<const std::int32_t*>(pages.data);
  const auto integers = [&](const oarlock_tensors* list, std::int64_t count) {
    return static_cast<const std::int32_t*>(
        vector(*list, Access::read, {kInt32}, count, device).data);
  };
  p.starts = integers(l.starts, p.sequences);
  p.counts = integers(l.counts, p.sequences);
  p.offsets = integers(l.offsets, p.sequences);
  p.owners = integers(l.owners, p.rows);
  p.heads = o.heads, p.kv_heads = o.kv_heads, p.head_size = o.head_size, p.window = o.window;
  p.scale = o.scale * kLog2E;
  return p;
}

}  // namespace
}  // namespace oarlock::cuda::decoder

using namespace oarlock;
using namespace oarlock::cuda::decoder;
namespace bricks = oarlock::cuda::quant;

// Bytes of a page of all layers, or -1 with an error.
OARLOCK_API std::int64_t oarlock_cuda_decoder_page_bytes(const oarlock_cuda_attention_options* o) {
  std::int64_t bytes = -1;
  guarded([&] {
    check_options(*o);
    bytes = head_bytes_of(*o) * o->layers * o->kv_heads;
  });
  return bytes;
}

// x [rows, size] -> out, the norm times weight plus bias, and rows in bricks. The bias and one of the results may
// be null.
OARLOCK_API std::int32_t oarlock_cuda_decoder_norm(
    const oarlock_tensors* x, const oarlock_tensors* weight, const oarlock_tensors* bias,
    const oarlock_tensors* out, const oarlock_tensors* rounded,
    const oarlock_cuda_norm_options* o) {
  return guarded([&] {
    const cuda::UseDevice use(*x);
    const Numbers from = bricks::numbers(*x, -1, -1, use.device());
    const std::int64_t rows = x->items[0].shape[0], size = x->items[0].shape[1];
    require(size > 0, "x must have columns");
    const Norm p{from,
                 bricks::floats(weight, size, use.device()),
                 bricks::floats(bias, size, use.device()),
                 rows,
                 size,
                 o->epsilon,
                 o->layer_norm != 0,
                 bricks::target(out, rows, size, use.device()),
                 bricks::bricks(rounded, Access::write, bricks::rows_bytes(rows, size),
                                use.device())};
    check_overlap({{*x, Access::read},
                   {*weight, Access::read},
                   {bricks::or_none(bias), Access::read},
                   {bricks::or_none(out), Access::write},
                   {bricks::or_none(rounded), Access::write}});
    if (rows == 0) return;
    const std::int64_t all = bricks::tiles_of(rows, bricks::kTileRows) * bricks::kTileRows;
    cuda::launch("decoder norm", norm, dim3(bricks::grid_of(p.bricks ? all : rows, 1)), kNormThreads,
                 0, p);
  });
}

// x [rows, columns], or with a gate [rows, 2 columns] -> out [rows, columns], and rows in bricks; one may be null.
OARLOCK_API std::int32_t oarlock_cuda_decoder_activate(const oarlock_tensors* x,
                                                       const oarlock_tensors* out,
                                                       const oarlock_tensors* rounded,
                                                       std::int32_t activation) {
  return guarded([&] {
    const cuda::UseDevice use(*x);
    require(activation >= 0 && activation < oarlock::decoder::kActivations,
            "activation is unknown: " + std::to_string(activation));
    Activated source{bricks::numbers(*x, -1, -1, use.device()),
                     static_cast<Activation>(activation)};
    const std::int64_t rows = x->items[0].shape[0], width = x->items[0].shape[1];
    const bool gated = source.activation == Activation::swiglu;
    require(width > 0 && (!gated || width % 2 == 0),
            "x must have columns, of gate and up beside each other an even number, not " +
                std::to_string(width));
    const std::int64_t columns = gated ? width / 2 : width;
    source.x.whole = source.x.whole && columns % bricks::kEight == 0;
    const Target target = bricks::target(out, rows, columns, use.device());
    char* const to = bricks::bricks(rounded, Access::write, bricks::rows_bytes(rows, columns),
                                    use.device());
    check_overlap({{*x, Access::read},
                   {bricks::or_none(out), Access::write},
                   {bricks::or_none(rounded), Access::write}});
    if (rows == 0) return;
    const std::int64_t work =
        bricks::tiles_of(rows, bricks::kTileRows) * bricks::kTileRows * bricks::eights_of(columns);
    cuda::launch("decoder activate", bricks::map_rows<Activated>,
                 dim3(bricks::grid_of(work, bricks::kEncodeThreads)), bricks::kEncodeThreads, 0,
                 source, rows, columns, target, to);
  });
}

// Turns queries in place, and stores keys, turned, and values in the pages of their positions. cos and sin
// [positions, rotary / 2] may be null with rotary = 0.
OARLOCK_API std::int32_t oarlock_cuda_decoder_store(
    const oarlock_tensors* qkv, const oarlock_tensors* cache, const oarlock_tensors* pages,
    const oarlock_tensors* starts, const oarlock_tensors* counts, const oarlock_tensors* offsets,
    const oarlock_tensors* owners, const oarlock_tensors* cos, const oarlock_tensors* sin,
    const oarlock_cuda_attention_options* o) {
  return guarded([&] {
    const cuda::UseDevice use(*qkv);
    const Attention p =
        operands({qkv, cache, pages, starts, counts, offsets, owners}, *o, use.device());
    Rotation rotation{nullptr, nullptr, o->rotary, o->rotary_halves != 0};
    require((o->rotary > 0) == (cos != nullptr) && (cos == nullptr) == (sin == nullptr),
            "cos and sin must be given where rotary is not 0");
    if (o->rotary > 0) {
      check_memory(*qkv, Access::write, use.device());
      const auto table = [&](const oarlock_tensors& list) {
        const auto& item = oarlock::quant::matrix(list, Access::read, {kFloat32}, -1,
                                                  o->rotary / 2, use.device());
        require(item.shape[0] >= o->most_length, std::string(list.name) + " has fewer than " +
                                                     std::to_string(o->most_length) + " positions");
        return static_cast<const float*>(item.data);
      };
      rotation.cos = table(*cos), rotation.sin = table(*sin);
    }
    check_overlap({{*qkv, Access::write}, {*cache, Access::write}, {*pages, Access::read}});
    if (p.rows > 0) store_rows(static_cast<CacheFormat>(o->format), p, rotation);
  });
}

// out [rows, heads head_size] <- what queries see of their sequence's pages. slopes [heads] may be null.
OARLOCK_API std::int32_t oarlock_cuda_decoder_attend(
    const oarlock_tensors* qkv, const oarlock_tensors* cache, const oarlock_tensors* pages,
    const oarlock_tensors* starts, const oarlock_tensors* counts, const oarlock_tensors* offsets,
    const oarlock_tensors* owners, const oarlock_tensors* slopes, const oarlock_tensors* out,
    const oarlock_cuda_attention_options* o) {
  return guarded([&] {
    const cuda::UseDevice use(*qkv);
    Attention p =
        operands({qkv, cache, pages, starts, counts, offsets, owners}, *o, use.device());
    p.slopes = bricks::floats(slopes, o->heads, use.device());
    p.out = bricks::target(out, p.rows, std::int64_t{o->heads} * o->head_size, use.device());
    check_overlap({{*qkv, Access::read}, {*cache, Access::read}, {*out, Access::write}});
    if (p.rows > 0)
      attend(static_cast<CacheFormat>(o->format), p, o->least_rows, o->most_rows, o->most_length);
  });
}
