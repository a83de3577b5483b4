"""The names under which quantities go through the package, and the units they have.

Everything inside is in the units of LAMMPS's ``metal`` style and of ASE: lengths in Å, energies in eV,
masses in atomic mass units, charges in e. `units` converts at the border.
"""

# Of a structure.
NUMBERS = "numbers"  #: [N] int, atomic numbers
POSITIONS = "positions"  #: [N, 3], Å
CELL = "cell"  #: [3, 3], Å; the rows are the lattice vectors
PERIODIC = "pbc"  #: [3] bool, whether the structure repeats along each lattice vector

# What a potential predicts and a reference calculation labels.
ENERGY = "energy"  #: eV, of a whole structure
ATOMIC_ENERGIES = "atomic_energies"  #: [N], eV
FORCES = "forces"  #: [N, 3], eV/Å, minus the gradient of the energy
VIRIAL = "virial"  #: [3, 3], eV, minus the derivative by a strain: −∂E/∂ε
STRESS = "stress"  #: [3, 3], eV/Å³, ∂E/∂ε by the volume: positive under tension, as in ASE

LABELS = (ENERGY, FORCES, VIRIAL)
