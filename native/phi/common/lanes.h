// Sums and maxima along a row in an order that vectorises and is the same on every processor.
#pragma once

#include <cstdint>

namespace oarlock {

// The sum of term(i) for i in [0, n): 32 partial sums, in float32.
template <typename Term>
inline float sum_of(std::int64_t n, const Term& term) {
  constexpr int kLanes = 32;
  float lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int k = 0; k < kLanes; ++k) lanes[k] += term(i + k);
  for (; i < n; ++i) lanes[i % kLanes] += term(i);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int k = 0; k < width; ++k) lanes[k] += lanes[k + width];
  return lanes[0];
}

// The largest of row[0 … n - 1]; NaN is passed over.
inline float largest(const float* row, std::int64_t n) {
  constexpr int kLanes = 32;
  float lanes[kLanes];
  for (int k = 0; k < kLanes; ++k) lanes[k] = row[0];
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int k = 0; k < kLanes; ++k) lanes[k] = row[i + k] > lanes[k] ? row[i + k] : lanes[k];
  for (; i < n; ++i) lanes[0] = row[i] > lanes[0] ? row[i] : lanes[0];
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int k = 0; k < width; ++k)
      lanes[k] = lanes[k + width] > lanes[k] ? lanes[k + width] : lanes[k];
  return lanes[0];
}

}  // namespace oarlock
