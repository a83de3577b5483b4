// The entry point of the backward pass.

#include <cmath>
#include <limits>
#include <thread>

#include "attention/mask.h"
#include "attention/work.h"
#include "core/dispatch.h"
#include "core/error.h"
#include "core/parallel.h"

OARLOCK_DECLARE_KERNELS(oarlock::attention::PackKernels, attention_pack_kernels)
OARLOCK_DECLARE_KERNELS(oarlock::attention::BackwardKernels, attention_backward_kernels)

namespace oarlock::attention {
namespace {

constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;

// What is packed of the queries, a tile of one head after the other.
struct QueryTile {
  QueryTile(float* memory, std::int64_t width)
      : queries(memory), out_grads(queries + kTileRows * width),
        query_grads(out_grads + kTileRows * width), log_sums(query_grads + kTileRows * width),
        deltas(log_sums + kTileRows) {}
  static std::int64_t floats(std::int64_t width) { return kTileRows * (3 * width + 2); }
  float *queries, *out_grads, *query_grads, *log_sums, *deltas;
};

// What is packed of a tile of keys, and the gradients of the tile.
struct KeyTileWork {
  KeyTileWork(float* memory, std::int64_t dim)
      : key_panels(memory), value_panels(key_panels + kTileKeys * dim),
        keys(value_panels + kTileKeys * dim), key_grads(keys + kTileKeys * padded(dim)),
        value_grads(key_grads + kTileKeys * padded(dim)) {}
  static std::int64_t floats(std::int64_t dim) { return kTileKeys * (2 * dim + 3 * padded(dim)); }
  float *key_panels, *value_panels, *keys, *key_grads, *value_grads;
};

// Tiles of keys that a task holds while the queries pass by: the more, the less often each query is
// fetched, but all of them should stay in the second cache.
std::int64_t tiles_held(std::int64_t dim) {
  constexpr std::int64_t kMost = std::int64_t{1} << 18;  // floats
  return std::clamp<std::int64_t>(kMost / KeyTileWork::floats(dim), 1, 4);
}

// The memory of a task.
struct KeyWork {
  KeyWork(float* memory, std::int64_t dim)
      : probabilities(memory), score_grads(probabilities + kTileRows * kTileKeys),
        tiles(score_grads + kTileRows * kTileKeys), dim(dim) {}
  static std::int64_t floats(std::int64_t dim) {
    return 2 * kTileRows * kTileKeys + tiles_held(dim) * KeyTileWork::floats(dim);
  }
  KeyTileWork tile(std::int64_t index) const {
    return KeyTileWork(tiles + index * KeyTileWork::floats(dim), dim);
  }
  float *probabilities, *score_grads, *tiles;
  std::int64_t dim;
};

// Sums over keys are added to a tile of queries in the order of the keys, whoever computes them: each
// task waits for the one with the keys before its own. Tasks start in that order, so one that is
// waited for has been started.
class Turns {
 public:
  explicit Turns(std::int64_t count) : last_(count) {
    for (auto& one : last_) one.store(kNone, std::memory_order_relaxed);
  }
  void wait(std::int64_t index, std::int64_t before) const {
    while (last_[index].load(std::memory_order_acquire) != before) std::this_thread::yield();
  }
  void done(std::int64_t index, std::int64_t part) {
    last_[index].store(part, std::memory_order_release);
  }
  static constexpr std::int64_t kNone = -1;

 private:
  std::vector<std::atomic<std::int64_t>> last_;
};

// The last part of the keys, `held` tiles each, before `part` of which these rows see something.
std::int64_t seen_before(const Mask& mask, const Head& head, std::int64_t part, std::int64_t held,
                         std::int64_t row, std::int64_t end) {
  for (std::int64_t tile = part * held - 1; tile >= 0; --tile)
    if (mask.sight(head.batch, head.kv_head, tile, row, end) != Sight::none) return tile / held;
  return Turns::kNone;
}

}  // namespace
}  // namespace oarlock::attention

using namespace oarlock;
using namespace oarlock::attention;

// Gradients of q, k and v from that of `out`; out and lse are those of the forward pass.
OARLOCK_API std::int32_t oarlock_attention_backward(
    const oarlock_tensors* q, const oarlock_tensors* k, const oarlock_tensors* v,
    const oarlock_tensors* out, const oarlock_tensors* lse, const oarlock_tensors* out_grad,
    const oarlock_tensors* q_grad, const oarlock_tensors* k_grad, const oarlock_tensors* v_grad,
    const oarlock_tensors* bounds, const oarlock_attention_options* o, std::int32_t threads) {
  return guarded([&] {
    check_threads(threads);
    const Shape shape = check_operands(*q, *k, *v, *o);
    check_like(*out, *q, Access::read);
    check_log_sums(*lse, shape, Access::read);
    check_like(*out_grad, *q, Access::read);
    check_like(*q_grad, *q, Access::write);
    check_like(*k_grad, *k, Access::write);
    check_like(*v_grad, *v, Access::write);
    check_bounds(bounds, shape, o->causal != 0);
    const oarlock_tensors no_bounds{"bounds", nullptr, 0};
    check_overlap({{*q, Access::read}, {*k, Access::read}, {*v, Access::read},
                   {*out, Access::read}, {*lse, Access::read}, {*out_grad, Access::read},
                   {*q_grad, Access::write}, {*k_grad, Access::write}, {*v_grad, Access::write},
                   {bounds == nullptr ? no_bounds : *bounds, Access::read}});
    const PackKernels& pack = OARLOCK_KERNELS(attention_pack_kernels);
    const BackwardKernels& kernels = OARLOCK_KERNELS(attention_backward_kernels);
    const Mask mask(shape, bounds, o->causal != 0);
    const Storage storage = storage_of(*q);
    const std::int64_t width = padded(shape.dim);
    const std::int64_t key_tiles = tiles(shape.keys, kTileKeys);
    const std::int64_t row_tiles = tiles(shape.rows, kTileRows);
    const std::int64_t per_head = shape.group() * row_tiles;  // tiles of queries
    const std::int64_t tile_floats = QueryTile::floats(width);
    const std::int32_t team = team_for(shape, threads);
    const auto rows_in = [&](std::int64_t row) {
      return static_cast<std::int32_t>(std::min<std::int64_t>(kTileRows, shape.rows - row));
    };
    const auto keys_in = [&](std::int64_t key) {
      return static_cast<std::int32_t>(std::min<std::int64_t>(kTileKeys, shape.keys - key));
    };
    Workspaces workspaces(team, KeyWork::floats(shape.dim));
    in_waves(shape, per_head * tile_floats, team,
             [&](std::int64_t first, std::int64_t count) {
      const Floats packed(count * per_head * tile_floats);
      const auto query_tile = [&](std::int64_t index) {
        return QueryTile(packed.data() + index * tile_floats, width);
      };
      // Calls body(tile, batch, head of the queries, first row) for every tile of queries.
      const auto for_queries = [&](const auto& body) {
        parallel_for(count * per_head, team, [&](std::int64_t task) {
          const Head head = head_of(shape, first + task / per_head);
          body(query_tile(task), head.batch,
               head.kv_head * shape.group() + task % per_head / row_tiles,
               task % row_tiles * kTileRows);
        });
      };
      for_queries([&](const QueryTile& tile, std::int64_t batch, std::int64_t head,
                      std::int64_t row) {
        const std::int32_t rows = rows_in(row);
        const auto take = [&](const oarlock_tensors& from, float scale, float* to) {
          pack.rows[storage](rows_of(from, batch, head, row), rows, kTileRows, shape.dim, scale,
                             to);
        };
        take(*q, static_cast<float>(o->scale * kLog2E), tile.queries);
        take(*out_grad, 1.0f, tile.out_grads);
        take(*out, 1.0f, tile.query_grads);  // until the products are taken
        pack.row_products(tile.query_grads, tile.out_grads, kTileRows, shape.dim, tile.deltas);
        std::fill_n(tile.query_grads, kTileRows * width, 0.0f);
        const float* const sums = static_cast<const float*>(lse->items[0].data) +
                                  (batch * shape.heads + head) * shape.rows + row;
        for (std::int32_t i = 0; i < kTileRows; ++i) {
          constexpr float kInfinity = std::numeric_limits<float>::infinity();
          // Rows that see no key, and rows that do not exist, get probabilities of 0.
          const bool empty = i >= rows || sums[i] == -kInfinity;
          tile.log_sums[i] = empty ? kInfinity : static_cast<float>(sums[i] * kLog2E);
        }
      });
      Turns turns(count * per_head);
      const std::int64_t most_held = tiles_held(shape.dim), parts = tiles(key_tiles, most_held);
      parallel_for(parts * count, team, [&](std::int64_t task) {
        const std::int64_t part = task / count, index = task % count;
        const Head head = head_of(shape, first + index);
        const std::int64_t first_tile = part * most_held;
        const std::int64_t held = std::min(most_held, key_tiles - first_tile);
        workspaces.with([&](float* memory) {
          const KeyWork own(memory, shape.dim);
          for (std::int64_t i = 0; i < held; ++i) {
            const KeyTileWork work = own.tile(i);
            const std::int64_t key = (first_tile + i) * kTileKeys;
            const std::int32_t keys = keys_in(key);
            const Rows key_rows = rows_of(*k, head.batch, head.kv_head, key);
            pack.panels[storage](key_rows, keys, shape.dim, work.key_panels);
            pack.rows[storage](key_rows, keys, kTileKeys, shape.dim, 1.0f, work.keys);
            pack.panels[storage](rows_of(*v, head.batch, head.kv_head, key), keys, shape.dim,
                                 work.value_panels);
            std::fill_n(work.key_grads, kTileKeys * width, 0.0f);
            std::fill_n(work.value_grads, kTileKeys * width, 0.0f);
          }
          for (std::int64_t i = 0; i < per_head; ++i) {
            const std::int64_t row = i % row_tiles * kTileRows, end = row + rows_in(row);
            const std::int64_t place = index * per_head + i;
            bool waited = false;
            for (std::int64_t j = 0; j < held; ++j) {
              const Sight sight = mask.sight(head.batch, head.kv_head, first_tile + j, row, end);
              if (sight == Sight::none) continue;
              if (!waited) turns.wait(place, seen_before(mask, head, part, most_held, row, end));
              waited = true;
              const QueryTile queries = query_tile(place);
              const KeyTileWork work = own.tile(j);
              const Intervals hidden = mask.intervals(head.batch, head.kv_head, first_tile + j);
              kernels.tile({shape.dim, static_cast<std::int32_t>(end - row),
                            static_cast<std::int32_t>(row), queries.queries, queries.out_grads,
                            queries.log_sums, queries.deltas, work.key_panels, work.value_panels,
                            work.keys, sight == Sight::every ? nullptr : &hidden,
                            own.probabilities, own.score_grads, queries.query_grads,
                            work.key_grads, work.value_grads});
            }
            if (waited) turns.done(place, part);
          }
          for (std::int64_t i = 0; i < held; ++i) {
            const KeyTileWork work = own.tile(i);
            const std::int64_t key = (first_tile + i) * kTileKeys;
            pack.unpack[storage](work.key_grads, nullptr, static_cast<float>(kLn2), keys_in(key),
                                 shape.dim, rows_of(*k_grad, head.batch, head.kv_head, key));
            pack.unpack[storage](work.value_grads, nullptr, 1.0f, keys_in(key), shape.dim,
                                 rows_of(*v_grad, head.batch, head.kv_head, key));
          }
        });
      });
      for_queries([&](const QueryTile& tile, std::int64_t batch, std::int64_t head,
                      std::int64_t row) {
        pack.unpack[storage](tile.query_grads, nullptr, static_cast<float>(o->scale), rows_in(row),
                             shape.dim, rows_of(*q_grad, batch, head, row));
      });
    });
  });
}
