// The forward pass over one tile: softmax while it comes, with the largest score so far.

#include "attention/tile.h"

namespace oarlock::OARLOCK_PATH {
namespace {

// Scores of a group of rows and what they see of the tile.
struct Group {
  Range keys;
  alignas(64) float scores[kBlockRows * kTileKeys];
};

inline void score(const ForwardTile& tile, int group, Group& out) {
  const int64_t stride = padded(tile.dim);
  const float* const queries = tile.queries + group * kBlockRows * stride;
  const int32_t first = tile.first_row + group * kBlockRows;
  Sight sights[kPanels];
  for (int panel = 0; panel < kPanels; ++panel) {
    const int key = panel * kPanel;
    sights[panel] = tile.mask == nullptr
                        ? Sight::every
                        : sight_of(*tile.mask, key, first, first + kBlockRows);
    if (sights[panel] != Sight::none) out.keys.include(key, key + kPanel);
  }
  for (int panel = out.keys.begin / kPanel; panel * kPanel < out.keys.end; ++panel) {
    float* const scores = out.scores + panel * kPanel;
    Block<kBlockRegisters> block;
    block.clear();
    block.add<false>(queries, stride, tile.key_panels + panel * kPanel * tile.dim, kPanel, tile.dim);
    if (sights[panel] != Sight::every) hide(block, *tile.mask, panel * kPanel, first);
    block.store(scores, kTileKeys);
  }
}

// Turns scores into 2^(score - largest), updates the sums, and gives the factors of what was summed
// before. Of rows that have seen no key yet the largest score is minus infinity.
inline void soften(Group& group, float* largest, float* sums, float* factors) {
  alignas(64) float base[kPad] = {}, before[kPad] = {};
  for (int r = 0; r < kBlockRows; ++r) {
    const float* const scores = group.scores + r * kTileKeys;
    floats most = load_floats(scores + group.keys.begin);
    for (int key = group.keys.begin + kLanes; key < group.keys.end; key += kLanes)
      most = maximum(load_floats(scores + key), most);
    const float found = largest_of(most);
    before[r] = largest[r];
    largest[r] = found > largest[r] ? found : largest[r];
    base[r] = largest[r] == kMinusInfinity ? 0.0f : largest[r];
  }
  for (int r = 0; r < kPad; r += kLanes)
    store_floats(factors + r, power_of_two(load_floats(before + r) - load_floats(base + r)));
  for (int r = 0; r < kBlockRows; ++r) {
    float* const scores = group.scores + r * kTileKeys;
    floats sum = floats{};
    for (int key = group.keys.begin; key < group.keys.end; key += kLanes) {
      const floats p = power_of_two(load_floats(scores + key) - all(base[r]));
      store_floats(scores + key, p);
      sum += p;
    }
    float* const here = sums + r * kPad;
    store_floats(here, multiply_add(load_floats(here), all(factors[r]), sum));
    for (int lane = kLanes; lane < kPad; lane += kLanes)
      store_floats(here + lane, load_floats(here + lane) * all(factors[r]));
  }
}

void forward_tile(const ForwardTile& tile) {
  const int64_t width = padded(tile.dim);
  for (int group = 0; group * kBlockRows < tile.rows; ++group) {
    Group g;
    score(tile, group, g);
    if (g.keys.size() == 0) continue;
    const int row = group * kBlockRows;
    alignas(64) float factors[kPad];
    soften(g, tile.largest + row, tile.sums + row * kPad, factors);
    add_product<false>(tile.out + row * width, factors, g.scores + g.keys.begin, kTileKeys,
                       tile.values + g.keys.begin * width, g.keys.size(), width);
  }
}

void exp2(const float* x, float* y, int64_t n) {
  alignas(64) float part[kLanes] = {};
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = n - i < kLanes ? n - i : kLanes;
    for (int64_t j = 0; j < count; ++j) part[j] = x[i + j];
    store_floats(part, power_of_two(load_floats(part)));
    for (int64_t j = 0; j < count; ++j) y[i + j] = part[j];
  }
}

}  // namespace

extern const ForwardKernels attention_forward_kernels;
const ForwardKernels attention_forward_kernels = {forward_tile, exp2};

}  // namespace oarlock::OARLOCK_PATH
