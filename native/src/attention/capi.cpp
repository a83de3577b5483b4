// The entry point of the forward pass.

#include <cmath>
#include <limits>

#include "attention/mask.h"
#include "attention/work.h"
#include "core/dispatch.h"
#include "core/error.h"
#include "core/parallel.h"

OARLOCK_DECLARE_KERNELS(oarlock::attention::PackKernels, attention_pack_kernels)
OARLOCK_DECLARE_KERNELS(oarlock::attention::ForwardKernels, attention_forward_kernels)

namespace oarlock::attention {
namespace {

constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;

// What a tile of rows needs besides the packed keys and values.
struct RowState {
  explicit RowState(float* memory, std::int64_t width)
      : queries(memory), out(queries + kTileRows * width), largest(out + kTileRows * width),
        sums(largest + kTileRows), factors(sums + kTileRows * kPad) {}
  static std::int64_t floats(std::int64_t width) {
    return 2 * kTileRows * width + kTileRows * (kPad + 2);
  }
  float *queries, *out, *largest, *sums, *factors;
};

// Turns sums into factors of the output and writes the log-sum-exp of each row.
void finish(RowState& state, std::int64_t rows, float* lse) {
  for (std::int64_t row = 0; row < rows; ++row) {
    float sum = 0;
    for (int lane = 0; lane < kPad; ++lane) sum += state.sums[row * kPad + lane];
    state.factors[row] = sum == 0 ? 0.0f : 1 / sum;
    lse[row] = sum == 0 ? -std::numeric_limits<float>::infinity()
                        : static_cast<float>((state.largest[row] + std::log2(sum)) * kLn2);
  }
}

}  // namespace
}  // namespace oarlock::attention

using namespace oarlock;
using namespace oarlock::attention;

// out = softmax(scale q k^T) v over the keys that a row sees, and the log of the softmax's sums.
OARLOCK_API std::int32_t oarlock_attention_forward(
    const oarlock_tensors* q, const oarlock_tensors* k, const oarlock_tensors* v,
    const oarlock_tensors* out, const oarlock_tensors* lse, const oarlock_tensors* bounds,
    const oarlock_attention_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Shape shape = check_operands(*q, *k, *v, *o);
    check_like(*out, *q, Access::write);
    check_log_sums(*lse, shape, Access::write);
    check_bounds(bounds, shape, o->causal != 0);
    const oarlock_tensors no_bounds{"bounds", nullptr, 0};
    check_overlap({{*q, Access::read}, {*k, Access::read}, {*v, Access::read},
                   {*out, Access::write}, {*lse, Access::write},
                   {bounds == nullptr ? no_bounds : *bounds, Access::read}});
    if (q->items[0].count == 0) return;
    const PackKernels& pack = OARLOCK_KERNELS(attention_pack_kernels);
    const ForwardKernels& kernels = OARLOCK_KERNELS(attention_forward_kernels);
    const Mask mask(shape, bounds, o->causal != 0);
    const Storage storage = storage_of(*q);
    const std::int64_t width = padded(shape.dim);
    const std::int64_t key_tiles = tiles(shape.keys, kTileKeys);
    const std::int64_t row_tiles = tiles(shape.rows, kTileRows);
    const std::int64_t panels = kTileKeys * shape.dim, tile_floats = panels + kTileKeys * width;
    const std::int32_t team = team_for(shape, threads);
    Workspaces workspaces(team, RowState::floats(width));
    in_waves(shape, key_tiles * tile_floats, team, [&](std::int64_t first, std::int64_t count) {
      const Floats packed(count * key_tiles * tile_floats);
      parallel_for(count * key_tiles, team, [&](std::int64_t task) {
        const Head head = head_of(shape, first + task / key_tiles);
        const std::int64_t key = task % key_tiles * kTileKeys;
        const auto present =
            static_cast<std::int32_t>(std::min<std::int64_t>(kTileKeys, shape.keys - key));
        float* const to = packed.data() + task * tile_floats;
        pack.panels[storage](rows_of(*k, head.batch, head.kv_head, key), present, shape.dim, to);
        pack.rows[storage](rows_of(*v, head.batch, head.kv_head, key), present, kTileKeys,
                           shape.dim, 1.0f, to + panels);
      });
      const std::int64_t per_head = shape.group() * row_tiles;
      parallel_for(count * per_head, team, [&](std::int64_t task) {
        const Head head = head_of(shape, first + task / per_head);
        const std::int64_t query_head =
            head.kv_head * shape.group() + task % per_head / row_tiles;
        // Under a causal mask the last rows are the most work: they come first.
        const std::int64_t row = (row_tiles - 1 - task % row_tiles) * kTileRows;
        const auto rows =
            static_cast<std::int32_t>(std::min<std::int64_t>(kTileRows, shape.rows - row));
        workspaces.with([&](float* memory) {
          RowState state(memory, width);
          pack.rows[storage](rows_of(*q, head.batch, query_head, row), rows, kTileRows, shape.dim,
                             static_cast<float>(o->scale * kLog2E), state.queries);
          std::fill_n(state.out, kTileRows * width, 0.0f);
          std::fill_n(state.largest, kTileRows, -std::numeric_limits<float>::infinity());
          std::fill_n(state.sums, kTileRows * kPad, 0.0f);
          ForwardTile work{shape.dim, rows, static_cast<std::int32_t>(row), state.queries,
                           state.out, state.largest, state.sums, 0, {}};
          for (std::int64_t tile = 0; tile < key_tiles; ++tile) {
            const Sight sight = mask.sight(head.batch, head.kv_head, tile, row, row + rows);
            if (sight == Sight::none) continue;
            const float* const keys =
                packed.data() + (task / per_head * key_tiles + tile) * tile_floats;
            work.keys[work.count++] = {keys, keys + panels, sight == Sight::some,
                                       mask.intervals(head.batch, head.kv_head, tile)};
            if (work.count == kTilesAtOnce) kernels.tile(work), work.count = 0;
          }
          if (work.count > 0) kernels.tile(work);
          finish(state, rows,
                 static_cast<float*>(lse->items[0].data) +
                     (head.batch * shape.heads + query_head) * shape.rows + row);
          pack.unpack[storage](state.out, state.factors, 1.0f, rows, shape.dim,
                               rows_of(*out, head.batch, query_head, row));
        });
      });
    });
  });
}
