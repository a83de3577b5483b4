// What the pair style and Python say to each other. `bridge.py` declares the same structures.
#pragma once

#include <cstdint>

namespace oarlock {

constexpr int MESSAGE_SIZE = 4096;

// A potential that Python has opened.
struct Model {
  int64_t handle;
  double cutoff;      // angstrom
  int32_t reach;      // in cut-offs
};

// One evaluation. Arrays are LAMMPS' own memory; Python reads x and adds to the results.
struct Step {
  int64_t handle;
  int32_t owned;      // atoms of this rank
  int32_t atoms;      // those and its ghosts
  int32_t rows;       // atoms with a list, those of the rank first
  int32_t owned_rows;
  int32_t rebuilt;    // whether the lists changed since the last step
  double unit;        // LAMMPS' unit of energy in eV
  const double *x;            // [atoms, 3]
  const int32_t *types;       // [atoms], from 1
  const int32_t *tags;        // [atoms], or null: not needed
  const int32_t *centers;     // [rows], the atom of each list
  const int64_t *offsets;     // [rows + 1]
  const int32_t *neighbours;  // [offsets[rows]]
  double *forces;             // [atoms, 3]
  double *atomic_energies;    // [atoms], or null: not wanted
  double *atomic_virials;     // [atoms, 6], or null: not wanted
  double energy;
  double virial[6];           // xx, yy, zz, xy, xz, yz
};

// Filled by Python. All but `close` give 0, or 1 and a message.
struct Calls {
  int (*open)(int32_t count, const char *const *arguments, Model *model, char *message);
  int (*assign)(int64_t handle, int32_t types, const char *const *elements, char *message);
  int (*compute)(Step *step, char *message);
  void (*close)(int64_t handle);
};

}    // namespace oarlock
