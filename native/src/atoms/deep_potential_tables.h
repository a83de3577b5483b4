// Embedding networks by tables: features lie in lanes, and none is kept. Source: DP Compress, 2107.02103.
#pragma once

#include "atoms/deep_potential_kernels.h"
#include "atoms/deep_potential_vectors.h"

namespace oarlock::OARLOCK_PATH {
namespace {

using atoms::kStrip;
using atoms::Segment;
using atoms::TableOf;

// Weights of the lines that an interval takes, for the number u of its length; the value at the node itself
// has the weight 1 in the value, and 0 in the slope.
constexpr int kLines = 5;
constexpr int kLine[kLines] = {1, 2, 3, 6, 7};  // difference, slope, curvature; and the next node's last two

template <typename T>
struct Hermite {
  T value[kLines], slope[kLines];
};

template <typename T>
OARLOCK_ALWAYS_INLINE Hermite<T> hermite(T u) {
  const T v = 1 - u, u2 = u * u, v2 = v * v, u3 = u2 * u, v3 = v2 * v;
  Hermite<T> h;
  h.value[0] = u3 * (1 + 3 * v + 6 * v2);
  h.value[1] = v3 * u * (1 + 3 * u);
  h.value[2] = T(0.5) * v3 * u2;
  h.value[3] = -u3 * v * (1 + 3 * v);
  h.value[4] = T(0.5) * u3 * v2;
  h.slope[0] = 30 * u2 * v2;
  h.slope[1] = v2 * (1 - 3 * u) * (1 + 5 * u);
  h.slope[2] = T(0.5) * v2 * u * (2 - 5 * u);
  h.slope[3] = u2 * (1 - 3 * v) * (1 + 5 * v);
  h.slope[4] = T(-0.5) * u2 * v * (2 - 5 * v);
  return h;
}

template <typename T>
struct Place {
  const T* nodes;  // lines, `pitch` apart
  T u;
};

template <typename T>
OARLOCK_ALWAYS_INLINE Place<T> place(const TableOf<T>& table, T x) {
  const T scaled = (x - table.first) * table.inverse_step;
  int64_t interval = int64_t(scaled);
  if (interval > table.intervals - 1) interval = table.intervals - 1;
  if (interval < 0) interval = 0;
  return {table.nodes + interval * 4 * table.pitch, scaled - T(interval)};
}

template <typename T>
OARLOCK_ALWAYS_INLINE const T* row_of(const T* rows, int64_t lane) {
  return rows + lane / kStrip * 4 * kStrip + lane % kStrip;
}

template <typename T, int kVectors>
OARLOCK_ALWAYS_INLINE void tabulate(const TableOf<T>& table, const T* rows, const Segment& segment,
                                    int64_t from, T* sums) {
  vector<T> parts[4][kVectors];
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      parts[c][v] = load(sums + c * table.pitch + from + v * lanes<T>);
  for (int64_t lane = segment.begin; lane < segment.end; ++lane) {
    const T* const row = row_of(rows, lane);
    const Place<T> at = place(table, row[0]);
    const Hermite<T> h = hermite(at.u);
    vector<T> r[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) r[c] = fill(row[c * kStrip]);
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const T* const node = at.nodes + from + v * lanes<T>;
      vector<T> g = load(node);
#pragma GCC unroll 5
      for (int b = 0; b < kLines; ++b)
        g = multiply_add(fill(h.value[b]), load(node + kLine[b] * table.pitch), g);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) parts[c][v] = multiply_add(g, r[c], parts[c][v]);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      store(sums + c * table.pitch + from + v * lanes<T>, parts[c][v]);
}

template <typename T>
bool tabulated(const TableOf<T>& table, const T* rows, const Segment& segment, T* sums) {
  const T most = T(table.intervals) * T(1.000001);
  for (int64_t lane = segment.begin; lane < segment.end; ++lane)
    if ((row_of(rows, lane)[0] - table.first) * table.inverse_step > most) return false;
  int64_t from = 0;
  for (; from + 4 * lanes<T> <= table.pitch; from += 4 * lanes<T>)
    tabulate<T, 4>(table, rows, segment, from, sums);
  const int64_t left = (table.pitch - from) / lanes<T>;
  if (left == 3) tabulate<T, 3>(table, rows, segment, from, sums);
  if (left == 2) tabulate<T, 2>(table, rows, segment, from, sums);
  if (left == 1) tabulate<T, 1>(table, rows, segment, from, sums);
  return true;
}

template <typename T>
void tabulated_back(const TableOf<T>& table, const T* rows, const Segment& segment, const T* given,
                    T* room, T* slopes) {
  constexpr int n = lanes<T>;
  T* kept = room;
  for (int64_t lane = segment.begin; lane < segment.end; ++lane, kept += 4 * n) {
    const T* const row = row_of(rows, lane);
    const Place<T> at = place(table, row[0]);
    const Hermite<T> h = hermite(at.u);
    vector<T> r[4], parts[5] = {};
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) r[c] = fill(row[c * kStrip] * table.inverse_step);
    for (int64_t k = 0; k < table.pitch; k += n) {
      vector<T> value = load(at.nodes + k), slope = {}, by_feature = {};
#pragma GCC unroll 5
      for (int b = 0; b < kLines; ++b) {
        const vector<T> line = load(at.nodes + kLine[b] * table.pitch + k);
        value = multiply_add(fill(h.value[b]), line, value);
        slope = multiply_add(fill(h.slope[b]), line, slope);
      }
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        const vector<T> factor = load(given + c * table.pitch + k);
        parts[c] = multiply_add(value, factor, parts[c]);
        by_feature = multiply_add(r[c], factor, by_feature);
      }
      parts[4] = multiply_add(slope, by_feature, parts[4]);
    }
    parts[0] += parts[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) store(kept + c * n, parts[c]);
  }
  // As many vectors as there are lanes become one of totals.
  const int64_t count = 4 * (segment.end - segment.begin);
  for (int64_t i = 0; i < count; i += n) {
    vector<T> parts[n];
    for (int j = 0; j < n; ++j) parts[j] = i + j < count ? load(room + (i + j) * n) : vector<T>{};
    const vector<T> sums = totals<T>(parts);
    for (int j = 0; j < n && i + j < count; ++j) {
      const int64_t lane = segment.begin + (i + j) / 4;
      slopes[lane / kStrip * 4 * kStrip + (i + j) % 4 * kStrip + lane % kStrip] = sums[j];
    }
  }
}

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
