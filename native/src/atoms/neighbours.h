// Pairs of atoms that are closer than a cut-off, by cells.
#pragma once

#include <cstdint>
#include <vector>

namespace oarlock::atoms {

struct Box {
  double cell[3][3];  // rows are lattice vectors
  bool periodic[3];
};

// Each unordered pair once: positions[second] − positions[first] + shift · cell is shorter than the
// cut-off. An atom is paired with its own images.
struct Pair {
  std::int32_t first, second;
  std::int32_t shift[3];
};

// Pairs in an order that the atoms decide, and not the threads.
std::vector<std::vector<Pair>> find_pairs(const double* positions, std::int64_t count,
                                          const Box& box, double cutoff, std::int32_t threads);

}  // namespace oarlock::atoms
