#include "decoder/attend.cuh"

#include <algorithm>
#include <type_traits>

#include "core/error.h"
#include "core/launch.cuh"
#include "core/memory.cuh"
#include "decoder/many_queries.cuh"
#include "quant/operands.cuh"

namespace oarlock::cuda::decoder {
namespace {

using quant::grid_of;
using quant::tiles_of;

constexpr std::int64_t kMostParts = std::int64_t{16} << 20;  // numbers that wait to be merged

// Calls body(a number of the type of the cache).
template <typename Body>
void with_items(CacheFormat format, const Body& body) {
  switch (format) {
    case CacheFormat::fp32: return body(float{});
    case CacheFormat::bf16: return body(path::bfloat16{});
    case CacheFormat::int8: return body(std::int8_t{});
  }
}

// Calls body(a constant of at least head_size).
template <typename Body>
void with_dim(int head_size, const Body& body) {
  if (head_size <= 64) return body(std::integral_constant<int, 64>{});
  if (head_size <= 128) return body(std::integral_constant<int, 128>{});
  body(std::integral_constant<int, 256>{});
}

// Calls body(a constant: how many queries that share keys a block takes). With eight there would be too few blocks on
// a processor for their registers; two blocks of four find the keys in the cache.
template <typename Body>
void with_queries(int group, const Body& body) {
  if (group == 1) return body(std::integral_constant<int, 1>{});
  body(std::integral_constant<int, 4>{});
}

// Rows at a time whose sums have room.
void few(CacheFormat format, const Attention& p, std::int64_t length, bool all) {
  const std::int64_t spans = tiles_of(length, kSpan), pitch = p.head_size + 2;
  const std::int64_t of_row = p.heads * spans * pitch;
  const std::int64_t at_once =
      spans == 1 ? p.rows : std::min(p.rows, std::max<std::int64_t>(1, kMostParts / of_row));
  const Memory memory(spans == 1 ? 0 : sizeof(float) * at_once * of_row);
  const int group = p.heads / p.kv_heads;
  for (std::int64_t row = 0; row < p.rows; row += at_once) {
    const std::int64_t rows = std::min(at_once, p.rows - row);
    const Parts parts{memory.as<float>(), row, spans, p.heads, static_cast<int>(pitch), all};
    with_items(format, [&](auto item) {
      with_dim(p.head_size, [&](auto dim) {
        with_queries(group, [&](auto queries) {
          const dim3 blocks(grid_of(rows * tiles_of(group, queries.value), 1),
                            static_cast<unsigned>(p.kv_heads), static_cast<unsigned>(spans));
          launch("decoder attend_few", attend_few<decltype(item), dim.value, queries.value>, blocks,
                 kFewThreads, 0, p, parts);
        });
      });
    });
    if (spans > 1)
      launch("decoder merge_spans", merge_spans,
             dim3(grid_of(rows, 1), static_cast<unsigned>(p.heads)), kMostHeadSize, 0, p, parts);
  }
}

template <typename T>
void many(const Attention& p, std::int64_t most) {
  with_dim(p.head_size, [&](auto dim) {
    const dim3 blocks(grid_of(most * (p.heads / p.kv_heads), kTileQueries),
                      static_cast<unsigned>(p.kv_heads), static_cast<unsigned>(p.sequences));
    launch("decoder attend_many", attend_many<T, dim.value>, blocks, kManyThreads,
           Layout<dim.value>::kBytes, p);
  });
}

}  // namespace

void store_rows(CacheFormat format, const Attention& p, const Rotation& rotation) {
  const dim3 blocks(grid_of(p.rows, 1), grid_of(p.heads + 2 * p.kv_heads, kStoreWarps));
  with_items(format, [&](auto item) {
    launch("decoder store", store<decltype(item)>, blocks, kStoreThreads, 0, p, rotation);
  });
}

void attend(CacheFormat format, const Attention& p, std::int64_t least, std::int64_t most,
            std::int64_t length) {
  if (format == CacheFormat::fp32) return few(format, p, length, true);
  if (least <= kFewRows) few(format, p, length, false);
  if (most <= kFewRows) return;
  if (format == CacheFormat::bf16)
    many<path::bfloat16>(p, most);
  else
    many<std::int8_t>(p, most);
}

}  // namespace oarlock::cuda::decoder
