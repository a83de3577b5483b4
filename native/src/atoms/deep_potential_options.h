// What crosses the C ABI for a Deep Potential; mirrored in oarlock/native/_deep_potential_abi.py.
#pragma once

#include <cstdint>

// y = x' + t tanh(x W + b); x' is x where the width stays, (x, x) where it doubles, else 0.
struct oarlock_atoms_layer {
  const double* weight;    // [inputs, outputs]
  const double* bias;      // [outputs]
  const double* timestep;  // [outputs], or null for 1
  std::int64_t inputs, outputs;
};

// Features of an embedding network at evenly spaced numbers, and between them by polynomials of degree 5.
struct oarlock_atoms_table {
  const double* nodes;  // [intervals + 1, 4, features]: value, what the next adds to it, step times slope,
                        // step^2 times curvature
  double first, step;
  std::int64_t intervals;
};

struct oarlock_atoms_deep_potential {
  std::int32_t bits;       // of the numbers that are computed with: 32 or 64
  std::int32_t kinds, one_side, axis, embedding_layers, fitting_layers;
  double cutoff, smooth, scale;
  const double* mean;       // [kinds, 4], of environment rows
  const double* deviation;  // [kinds, 4]
  const double* sel;        // [kinds]
  const double* reference;  // [kinds], eV
  const double* nothing;    // [kinds, kinds, features, 4], of centre and neighbour: features times row where s = 0
  const oarlock_atoms_layer* embedding;  // [networks, layers]; of neighbours, or of centre and neighbour
  const oarlock_atoms_layer* fitting;    // [kinds, layers + 1], the last with one output and no tanh
  const oarlock_atoms_table* tables;     // [networks] in place of the embedding; or null
};

struct oarlock_atoms_structure {
  std::int64_t atoms, rows, owned;
  const double* positions;         // [atoms, 3]
  const std::int32_t* species;     // [atoms]
  const std::int64_t* offsets;     // [rows + 1]
  const std::int32_t* neighbours;  // [offsets[rows]]
  const double* shifts;            // [offsets[rows], 3], or null
  double* energies;                // [owned]
  double* forces;                  // [atoms, 3]
  double* virial;                  // [9]
  double* virials;                 // [owned, 9], what each atom's own edges give; or null
};
