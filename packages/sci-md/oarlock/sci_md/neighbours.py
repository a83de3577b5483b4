"""Which atoms are close to which: the lists that potentials run over.

A list is kept as compressed rows: the neighbours of atom ``i`` are
``neighbours[offsets[i]:offsets[i + 1]]``, in no particular order, and the vector of an edge goes
from its centre to its neighbour, ``positions[j] − positions[i] + shift``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from oarlock.native import atoms
from oarlock.sci_md.structure import Array, Structure

#: Atoms closer than this, in Å, are taken for a mistake in the input.
OVERLAP = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Neighbourhood:
    """Atoms and the lists of neighbours of the first ``rows`` of them.

    Programs such as LAMMPS have images of atoms (ghosts) behind the atoms they own: those are atoms
    here too, and `shifts` is None. Structures have no ghosts; edges that leave the box have a shift.

    Args:
        positions: [M, 3] float64, Å.
        species: [M] int32, indices into the elements of a potential.
        offsets: [rows + 1] int64, rows ≤ M.
        neighbours: [E] int32, each below M.
        shifts: [E, 3] float64, Å, what is added to the vector of each edge; None for nothing.
        owned: how many atoms' energies count, ≤ rows; the atoms from there to `rows` pass messages only.
        reverse: [E] int32, the edge that leads back; None where it is not known. Potentials can then
            compute what both have in common once.
    """

    positions: Array
    species: NDArray[np.int32]
    offsets: NDArray[np.int64]
    neighbours: NDArray[np.int32]
    shifts: Array | None = None
    owned: int
    reverse: NDArray[np.int32] | None = None

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def centers(self) -> NDArray[np.int32]:
        """[E], the atom at which each edge begins."""
        return np.repeat(np.arange(self.rows, dtype=np.int32), np.diff(self.offsets))

    def vectors(self) -> Array:
        """[E, 3], Å, from centre to neighbour."""
        return self.vectors_and_squares()[0]

    def vectors_and_squares(self) -> tuple[Array, Array]:
        """[E, 3] in Å and [E] in Å²: the edges' vectors, and the squares of their lengths."""
        return atoms.edge_vectors(
            self.positions, self.offsets, self.neighbours, self.shifts, threads=1
        )


def species_of(structure: Structure, elements: Sequence[str]) -> NDArray[np.int32]:
    """The index of each atom's element.

    Raises:
        ValueError: an element that the potential does not know.
    """
    index = np.full(200, -1, dtype=np.int32)
    for position, symbol in enumerate(elements):
        index[atomic_numbers[symbol]] = position
    species = index[structure.numbers]
    if (species < 0).any():
        unknown = sorted({structure.symbols[atom] for atom in np.flatnonzero(species < 0)})
        raise ValueError(
            f"{structure.name or 'the structure'} holds {', '.join(unknown)}, but the potential "
            f"knows {', '.join(elements)}: train it with that element"
        )
    return species


def find_neighbours(
    structure: Structure, elements: Sequence[str], cutoff: float, *, threads: int = 1
) -> Neighbourhood:
    """All pairs closer than `cutoff` (Å), each from both ends, images included.

    Raises:
        ValueError: the cut-off is not positive, an element is unknown, or two atoms overlap.
    """
    if not cutoff > 0:
        raise ValueError(f"cutoff={cutoff} has to be a positive length in Å")
    species = species_of(structure, elements)
    found = atoms.neighbour_list(
        structure.positions,
        structure.cell,
        structure.pbc.tolist(),
        cutoff=cutoff,
        threads=threads,
    )
    neighbourhood = Neighbourhood(
        positions=structure.positions,
        species=species,
        offsets=found.offsets,
        neighbours=found.neighbours,
        shifts=found.shifts @ structure.cell if structure.pbc.any() else None,
        owned=len(structure),
        reverse=found.reverse,
    )
    check_overlap(neighbourhood, structure.name or "the structure")
    return neighbourhood


def check_overlap(neighbourhood: Neighbourhood, name: str = "the structure") -> None:
    """Raises ValueError, naming two atoms that are at the same place."""
    _, squares = neighbourhood.vectors_and_squares()
    if len(squares) and squares.min() < OVERLAP**2:
        edge = int(squares.argmin())
        raise ValueError(
            f"atoms {neighbourhood.centers[edge]} and {neighbourhood.neighbours[edge]} of {name} "
            f"are {squares[edge] ** 0.5:.2g} Å apart: mend the positions or the box"
        )


def moved(neighbourhood: Neighbourhood, positions: Array) -> Neighbourhood:
    """The same lists for atoms that have moved a little."""
    return replace(neighbourhood, positions=np.ascontiguousarray(positions, dtype=np.float64))
