// What the search for neighbours needs of a code path.
#pragma once

#include <stdint.h>

namespace oarlock::atoms {

// Atoms of some cells, one after the other.
struct Points {
  const double *x, *y, *z;
};

struct NeighbourKernels {
  // Writes the numbers, from begin to end, of the points that are closer to (x, y, z) than the square
  // root of `square`; returns how many. `found` has room for end − begin + 8.
  int64_t (*within)(const Points& points, int64_t begin, int64_t end, double x, double y, double z,
                    double square, int32_t* found);
};

}  // namespace oarlock::atoms
