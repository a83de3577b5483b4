// Sums in float64 in a fixed order, the same on every code path.
#pragma once

#include "core/kernel.h"

namespace oarlock::OARLOCK_PATH {
namespace {

constexpr int kLanes = 16;

// Element i goes to lane i mod 16; the lanes are added pairwise.
struct LaneSum {
  double lanes[kLanes] = {};
  double total() const {
    double sum[kLanes];
    for (int j = 0; j < kLanes; ++j) sum[j] = lanes[j];
    for (int width = kLanes / 2; width > 0; width /= 2)
      for (int j = 0; j < width; ++j) sum[j] += sum[j + width];
    return sum[0];
  }
};

}  // namespace
}  // namespace oarlock::OARLOCK_PATH
