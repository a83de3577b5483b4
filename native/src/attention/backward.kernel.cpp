// The backward pass over one tile: probabilities from the kept sums, then four products.

#include "attention/tile.h"

namespace oarlock::OARLOCK_PATH {
namespace {

constexpr int kKeyGroups = kTileKeys / kBlockRows;

// What the rows of a tile see, block by block.
struct View {
  Range keys[kGroups];     // that each group of rows sees
  Range rows[kKeyGroups];  // that see each group of keys
};

// Probabilities and gradients of the scores of one block. Both stay in registers until they are ready:
// numbers stored and read again between the products would make each wait for the other.
inline void differentiate(const BackwardTile& tile, int group, int panel, bool masked) {
  const int64_t stride = padded(tile.dim);
  const int row = group * kBlockRows, key = panel * kPanel;
  float* const p = tile.probabilities + row * kTileKeys + key;
  float* const ds = tile.score_grads + row * kTileKeys + key;
  {
    Block<kBlockRegisters> block;  // scores
    block.clear();
    block.add<false>(tile.queries + row * stride, stride, tile.key_panels + key * tile.dim, kPanel,
                     tile.dim);
    block.subtract(tile.log_sums + row);
    if (masked) hide(block, *tile.mask, key, tile.first_row + row);
    block.raise();
    block.store(p, kTileKeys);
  }
  Block<kBlockRegisters> block;  // gradients of the probabilities
  block.clear();
  block.add<false>(tile.out_grads + row * stride, stride, tile.value_panels + key * tile.dim, kPanel,
                   tile.dim);
  block.subtract(tile.deltas + row);
  block.multiply(p, kTileKeys);
  block.store(ds, kTileKeys);
}

inline void clear(float* block) {
  for (int r = 0; r < kBlockRows; ++r)
    for (int c = 0; c < kPanel; c += kLanes) store_floats(block + r * kTileKeys + c, floats{});
}

void backward_tile(const BackwardTile& tile) {
  const int64_t width = padded(tile.dim);
  View view;
  for (int panel = 0; panel < kPanels; ++panel) {
    const int key = panel * kPanel;
    for (int group = 0; group * kBlockRows < tile.rows; ++group) {
      const int row = group * kBlockRows;
      const int32_t first = tile.first_row + row;
      const Sight sight = tile.mask == nullptr
                              ? Sight::every
                              : sight_of(*tile.mask, key, first, first + kBlockRows);
      if (sight == Sight::none) {
        clear(tile.probabilities + row * kTileKeys + key);
        clear(tile.score_grads + row * kTileKeys + key);
        continue;
      }
      differentiate(tile, group, panel, sight == Sight::some);
      view.keys[group].include(key, key + kPanel);
      // Groups of keys that share a key with the panel.
      for (int of_keys = key / kBlockRows; of_keys * kBlockRows < key + kPanel; ++of_keys)
        view.rows[of_keys].include(row, row + kBlockRows);
    }
  }
  for (int group = 0; group * kBlockRows < tile.rows; ++group) {
    const Range& keys = view.keys[group];
    if (keys.size() == 0) continue;
    add_product<false>(tile.query_grads + group * kBlockRows * width,
                       tile.score_grads + group * kBlockRows * kTileKeys + keys.begin, kTileKeys,
                       tile.keys + keys.begin * width, keys.size(), width);
  }
  for (int group = 0; group < kKeyGroups; ++group) {
    const Range& rows = view.rows[group];
    if (rows.size() == 0) continue;
    const int64_t first = rows.begin * kTileKeys + group * kBlockRows;
    const int64_t to = group * kBlockRows * width;
    add_product<true>(tile.value_grads + to, tile.probabilities + first, kTileKeys,
                      tile.out_grads + rows.begin * width, rows.size(), width);
    add_product<true>(tile.key_grads + to, tile.score_grads + first, kTileKeys,
                      tile.queries + rows.begin * width, rows.size(), width);
  }
}

}  // namespace

extern const BackwardKernels attention_backward_kernels;
const BackwardKernels attention_backward_kernels = {backward_tile};

}  // namespace oarlock::OARLOCK_PATH
