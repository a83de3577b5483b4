// The kernels of the Deep Potential: what a code path provides, in float and in double.
//
// Edges lie in lanes, kStrip to a strip; a row of a strip holds the values of kStrip edges and then, where
// networks are concerned, their derivatives. Further on, atoms lie in lanes, kBlock to a row.
#pragma once

#include <stdint.h>

namespace oarlock::atoms {

constexpr int64_t kStrip = 16;
constexpr int64_t kBlock = 32;     // atoms of one element that go through together
constexpr int64_t kTileRows = 13;  // outputs of a layer that a tile computes

// Weights are packed in tiles of at most kTileRows outputs, as even as can be: those of the outputs from
// `first` on are [inputs, rows] from inputs * first on.
template <typename T>
struct LayerOf {
  const T* weight;      // packed by outputs
  const T* transposed;  // packed by inputs; null where no gradient is taken by it
  const T* bias;
  const T* timestep;  // or null
  int64_t inputs, outputs, repeats;  // repeats: of the inputs in the shortcut
};

template <typename T>
struct NetworkOf {
  const LayerOf<T>* layers;
  int64_t count;
  const T* last;  // [outputs of the last layer], or null
  T last_bias;
};

template <typename T>
struct TableOf {
  const T* nodes;  // [intervals + 1, 4, pitch]
  T first, inverse_step;
  int64_t intervals, pitch;
};

// Edges of one atom to one element: lanes `begin` to `end` - 1, counted from the first strip.
struct Segment {
  int64_t begin, end;
};

template <typename T>
struct Environment {
  T cutoff, smooth;
  T mean[4], inverse_deviation[4];
};

template <typename T>
struct DeepPotentialKernels {
  // Rows [strips, 4, kStrip] of vectors [strips, 3, kStrip].
  void (*environment)(const Environment<T>& of, const T* vectors, int64_t strips, T* rows);
  // dE/dvectors from dE/drows (`slopes`).
  void (*gradient)(const Environment<T>& of, const T* vectors, const T* slopes, int64_t strips,
                   T* gradients);
  // Features and their derivatives [strips, features, 2 kStrip] from the first of each four rows. `room`: twice
  // the widest layer times 2 kStrip.
  void (*embed)(const NetworkOf<T>& network, const T* rows, int64_t strips, T* room, T* features);
  // sums[k][c] += features[k] rows[c] over a segment. room: strips of the segment times 4 kStrip.
  void (*contract)(const T* features, const T* rows, int64_t width, const Segment& segment, T* room,
                   T* sums);
  // slopes += dE/drows where given = dE/dsums, what the first row does to features among it.
  void (*contract_back)(const T* features, const T* rows, int64_t width, const Segment& segment,
                        const T* given, T* room, T* slopes);
  // The same from tables; sums and given are [4][pitch]. False if a number is beyond the table.
  bool (*tabulated)(const TableOf<T>& table, const T* rows, const Segment& segment, T* sums);
  // room: 4 vectors for each edge.
  void (*tabulated_back)(const TableOf<T>& table, const T* rows, const Segment& segment,
                         const T* given, T* room, T* slopes);
  // products[i][j] = sum over c of sums[i][c] sums[j][c], j < axis; each row kBlock atoms.
  void (*describe)(const T* sums, int64_t width, int64_t axis, T* products);
  void (*describe_back)(const T* slopes, const T* sums, int64_t width, int64_t axis, T* given);
  // Energies [kBlock] of descriptors [inputs, kBlock], which become their slopes. room:
  // for each layer its outputs, and twice the most of them, times kBlock.
  void (*fit)(const NetworkOf<T>& network, T* descriptors, T* room, T* energies);
};

}  // namespace oarlock::atoms
