// The forward pass over one tile: softmax while it comes, with the largest score so far.

#include "attention/tile.h"

namespace oarlock::OARLOCK_PATH {
namespace {

constexpr int kScores = kTilesAtOnce * kTileKeys;  // of a row

// Neighbouring keys of one tile.
struct Segment {
  const float* values;
  int count;
};

// Scores of a group of rows, of the keys that any of them sees only, and where those keys are.
struct Group {
  int keys = 0, segments = 0;
  Segment segment[kTilesAtOnce];
  alignas(64) float scores[kBlockRows * kScores];
};

inline void score(const ForwardTile& tile, int group, Group& out) {
  const int64_t stride = padded(tile.dim);
  const float* const queries = tile.queries + group * kBlockRows * stride;
  const int32_t first = tile.first_row + group * kBlockRows;
  for (int i = 0; i < tile.count; ++i) {
    const KeyTile& keys = tile.keys[i];
    Range seen;
    Sight sights[kPanels];
    for (int panel = 0; panel < kPanels; ++panel) {
      const int key = panel * kPanel;
      sights[panel] = keys.masked ? sight_of(keys.mask, key, first, first + kBlockRows)
                                  : Sight::every;
      if (sights[panel] != Sight::none) seen.include(key, key + kPanel);
    }
    if (seen.size() == 0) continue;
    for (int key = seen.begin; key < seen.end; key += kPanel) {
      Block<kBlockRegisters> block;
      block.clear();
      block.add<false>(queries, stride, keys.key_panels + key * tile.dim, kPanel, tile.dim);
      if (sights[key / kPanel] != Sight::every) hide(block, keys.mask, key, first);
      block.store(out.scores + out.keys, kScores);
      out.keys += kPanel;
    }
    out.segment[out.segments++] = {keys.values + seen.begin * stride, seen.size()};
  }
}

// Turns scores into 2^(score - largest), updates the sums, and gives the factors of what was summed
// before. Of rows that have seen no key yet the largest score is minus infinity.
inline void soften(Group& group, float* largest, float* sums, float* factors) {
  alignas(64) float base[kPad] = {}, before[kPad] = {};
  const int keys = group.keys;
  for (int r = 0; r < kBlockRows; ++r) {
    const float* const scores = group.scores + r * kScores;
    floats most = load_floats(scores);
    for (int key = kLanes; key < keys; key += kLanes)
      most = maximum(load_floats(scores + key), most);
    const float found = largest_of(most);
    before[r] = largest[r];
    largest[r] = found > largest[r] ? found : largest[r];
    base[r] = largest[r] == kMinusInfinity ? 0.0f : largest[r];
  }
  for (int r = 0; r < kPad; r += kLanes)
    store_floats(factors + r, power_of_two(load_floats(before + r) - load_floats(base + r)));
  for (int r = 0; r < kBlockRows; ++r) {
    float* const scores = group.scores + r * kScores;
    floats sum = floats{};
    for (int key = 0; key < keys; key += kLanes) {
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

// out = out times the factor of its row, plus probabilities times values.
inline void mix(const Group& group, const float* factors, float* out, int64_t width) {
  const auto columns = [&](auto block, int64_t column) {
    block.load_scaled(out + column, width, factors);
    const float* p = group.scores;
    for (int i = 0; i < group.segments; ++i) {
      const Segment& one = group.segment[i];
      block.template add<false>(p, kScores, one.values + column, width, one.count);
      p += one.count;
    }
    block.store(out + column, width);
  };
  int64_t column = 0;
  for (; column + kPanel <= width; column += kPanel) columns(Block<kBlockRegisters>{}, column);
  for (; column < width; column += kLanes) columns(Block<1>{}, column);
}

void forward_tile(const ForwardTile& tile) {
  const int64_t width = padded(tile.dim);
  for (int row = 0; row < tile.rows; row += kBlockRows) {
    Group group;
    score(tile, row / kBlockRows, group);
    if (group.keys == 0) continue;
    alignas(64) float factors[kPad];
    soften(group, tile.largest + row, tile.sums + row * kPad, factors);
    mix(group, factors, tile.out + row * width, width);
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
