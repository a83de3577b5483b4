"""One `pair_style oarlock`: a potential, what LAMMPS' types mean to it, and its current lists."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from oarlock.sci_md.evaluate.evaluator import AtomicVirials, Evaluation, Evaluator
from oarlock.sci_md.lammps.images import Images
from oarlock.sci_md.lammps.lists import Lists, Selection, select
from oarlock.sci_md.neighbours import Neighbourhood
from oarlock.sci_md.structure import Array

#: Å; closer atoms may be what went wrong.
TOO_CLOSE = 0.6


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Outcome:
    """What LAMMPS adds to its own arrays.

    Args:
        evaluation: of the atoms of `atoms`.
        virials: [rows, 3, 3], eV, where wanted.
        atoms: LAMMPS' index of each atom of the evaluation; None if they are LAMMPS' first.
    """

    evaluation: Evaluation
    virials: Array | None
    atoms: NDArray[np.int32] | None


class Session:
    """Args:
    evaluator: of the potential.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self._species: NDArray[np.int32] | None = None  # by type, which LAMMPS counts from 1
        self._selection: Selection | None = None
        self._images: Images | None = None

    def assign(self, elements: Sequence[str | None]) -> None:
        """The element of each atom type; None for types that are not this potential's.

        Raises:
            ValueError: an element that the potential does not know, or none at all.
        """
        known = {symbol: index for index, symbol in enumerate(self.evaluator.elements)}
        species = np.full(len(elements) + 1, -1, dtype=np.int32)
        for kind, symbol in enumerate(elements, start=1):
            if symbol is None:
                continue
            if symbol not in known:
                what = "an element that" if symbol in atomic_numbers else "no element, and"
                raise ValueError(
                    f"type {kind} is {symbol}, {what} the potential does not know: it knows "
                    f"{', '.join(self.evaluator.elements)}"
                )
            species[kind] = known[symbol]
        if (species < 0).all():
            raise ValueError("no type has an element: name at least one")
        self._species = species

    def compute(
        self,
        positions: Array,
        types: NDArray[np.int32],
        lists: Lists,
        *,
        tags: NDArray[np.int32] | None,
        rebuilt: bool,
        virials: bool = False,
    ) -> Outcome:
        """Evaluates the potential on LAMMPS' atoms and ghosts.

        Args:
            positions: [atoms, 3], Å.
            types: [atoms], from 1.
            tags: [atoms], needed where messages pass over more than one edge.
            rebuilt: whether the lists are others than in the last call.
            virials: also share the virial out among atoms.
        """
        if self._species is None:
            raise ValueError("the types have no elements: give pair_coeff * * ELEMENT ...")
        if virials and not isinstance(self.evaluator, AtomicVirials):
            raise ValueError(
                f"{type(self.evaluator).__name__} gives no virials of single atoms: "
                "remove compute stress/atom, or use another form of the model"
            )
        if rebuilt:
            self._selection = self._select(lists, tags)
            self._images = None if self._selection is None else Images(self._selection, positions)
        chosen, images = self._selection, self._images
        if chosen is None or images is None:
            atoms = Neighbourhood(
                positions=positions,
                species=self._species[types],
                offsets=lists.offsets,
                neighbours=lists.neighbours,
                owned=lists.owned,
            )
        else:
            atoms = Neighbourhood(
                positions=positions[chosen.atoms],
                species=self._species[types[chosen.atoms]],
                offsets=chosen.offsets,
                neighbours=chosen.neighbours,
                shifts=images.shifts(positions),
                reverse=images.reverse,
                owned=chosen.owned,
            )
        indices = None if chosen is None else chosen.atoms
        shared = None
        try:
            evaluation = self.evaluator.evaluate(atoms)
            if virials and isinstance(self.evaluator, AtomicVirials):
                shared = self.evaluator.atomic_virials(atoms)
        except ValueError as error:
            raise ValueError(f"{error}{_closest(atoms, indices, tags)}") from error
        return Outcome(evaluation=evaluation, virials=shared, atoms=indices)

    def _select(self, lists: Lists, tags: NDArray[np.int32] | None) -> Selection | None:
        if self.evaluator.reach > 1:
            return select(lists, self.evaluator.reach, tags)
        return None if lists.plain else select(lists, 1)


def _closest(
    atoms: Neighbourhood, indices: NDArray[np.int32] | None, tags: NDArray[np.int32] | None
) -> str:
    """What LAMMPS calls the two closest atoms, where they are too close; an evaluator counts in its own way."""
    lengths = np.linalg.norm(atoms.vectors(), axis=1)
    if not len(lengths) or lengths.min() > TOO_CLOSE:
        return ""
    edge = int(np.argmin(lengths))
    pair = np.array([atoms.centers[edge], atoms.neighbours[edge]])
    pair = pair if indices is None else indices[pair]
    names = "" if tags is None else f", those with the IDs {tags[pair[0]]} and {tags[pair[1]]},"
    return f"; the closest atoms{names} are {lengths[edge]:.3g} Å apart"
