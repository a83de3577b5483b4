"""What units a source's numbers are in, and whether that can be true."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import covalent_radii

from oarlock.native import atoms
from oarlock.sci_md.structure import Array, Structure
from oarlock.sci_md.units import factor

NOBLE = (2, 10, 18, 36, 54, 86)

#: Nearest neighbours, as a multiple of the sum of their covalent radii: bonds and metals are within.
BONDS = (0.5, 1.5)
#: The slope of −∫F·dx by energy differences: 1 where units fit together.
SLOPES = (0.6, 1.6)
#: eV/Å, root mean square; thermal forces are about 1.
LARGEST_FORCE = 100.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Units:
    """The units of a source, as `units.factor` reads them. Forces are energy by length, virials energies.

    Args:
        energy: eV, kcal/mol, kJ/mol, Hartree, Rydberg, …
        length: angstrom, Bohr, nm, …
    """

    energy: str = "eV"
    length: str = "angstrom"

    def __post_init__(self) -> None:
        for field, inside in (("energy", "eV"), ("length", "angstrom")):
            try:
                factor(getattr(self, field), inside)
            except ValueError as error:
                raise ValueError(f"{field}={getattr(self, field)!r}: {error}") from error

    @property
    def eV(self) -> float:
        """One of the source's units of energy in eV."""
        return factor(self.energy, "eV")

    @property
    def angstrom(self) -> float:
        """One of the source's units of length in Å."""
        return factor(self.length, "angstrom")


def check_scales(structures: Sequence[Structure], *, limit: int = 200) -> None:
    """Refuses numbers that cannot be in eV and Å.

    Looks at the distances of nearest neighbours by covalent radii; at ΔE ≈ −½ (F₁ + F₂)·Δx between
    similar frames, which has the slope 1 if energies, forces and lengths belong together and −1 if the
    forces are gradients; and at the size of forces. A common factor of energies and forces together
    (kcal/mol declared as eV) can escape.

    Args:
        limit: how many structures are looked at, spread over the sequence.

    Raises:
        ValueError: says which, and by how much.
    """
    looked = [structures[i] for i in _spread(len(structures), limit)]
    ratios = [ratio for one in looked if (ratio := _bond_ratio(one)) is not None]
    if ratios:
        middle = float(np.median(ratios))
        if not BONDS[0] < middle < BONDS[1]:
            hint = "nm" if middle < BONDS[0] else "Bohr"
            raise ValueError(
                f"{_called(looked)}: nearest neighbours are {middle:.2g} times as far apart as bonds "
                f"are, so the lengths are not in the declared unit: declare length={hint!r} (or "
                "another), or pass check=False (commands: --unchecked) if it is so"
            )
    forces = [one.forces for one in looked if one.forces is not None and len(one)]
    if forces:
        size = float(np.sqrt(np.mean([np.square(one).mean() for one in forces])))
        if size > LARGEST_FORCE:
            raise ValueError(
                f"{_called(looked)}: the forces are {size:.3g} eV/Å on average (rms): declare the "
                "units they are in, mend them, or pass check=False (commands: --unchecked) if it is so"
            )
    slope = energy_slope(looked)
    if slope is not None and not SLOPES[0] < slope < SLOPES[1]:
        raise ValueError(
            f"{_called(looked)}: between similar frames, forces explain {slope:.3g} times the change "
            "of the energies: energies, forces and lengths are not in units that belong together "
            "(or the forces have the wrong sign); declare the units, or pass check=False (commands: --unchecked) if it is so"
        )


def energy_slope(structures: Sequence[Structure]) -> float | None:
    """By how much −∫F·dx of neighbouring frames has to be divided to be ΔE; None if they do not tell.

    Frames tell if they have the same atoms in the same box and the two correlate at |r| > 0.9.
    """
    groups: dict[bytes, list[Structure]] = defaultdict(list)
    for one in structures:
        if one.energy is not None and one.forces is not None and len(one):
            groups[one.numbers.tobytes() + one.cell.tobytes()].append(one)
    changes, works = [], []
    for frames in groups.values():
        for before, after in zip(frames, frames[1:], strict=False):
            moved = _shortest(after.positions - before.positions, before)
            changes.append(after.energy - before.energy)  # type: ignore[operator]
            works.append(float(-0.5 * ((before.forces + after.forces) * moved).sum()))  # type: ignore[operator]
    if len(changes) < 8 or not np.std(changes) > 0 or not np.std(works) > 0:
        return None
    correlation = float(np.corrcoef(changes, works)[0, 1])
    if abs(correlation) < 0.9:
        return None
    return float(np.copysign(np.std(works) / np.std(changes), correlation))


def _shortest(moved: Array, structure: Structure) -> Array:
    """Displacements without the whole lattice vectors that wrapping adds."""
    if not structure.pbc.all():
        return moved
    fractions = moved @ np.linalg.inv(structure.cell)
    return (fractions - np.round(fractions)) @ structure.cell


def _bond_ratio(structure: Structure) -> float | None:
    """Distance of an atom's nearest neighbour by covalent radii, the middle one of all atoms.

    None for lone atoms and noble gases.
    """
    if len(structure) < 2:
        return None
    radii = covalent_radii[structure.numbers]
    cutoff = 20.0 * float(radii.max(initial=0.3))
    if structure.pbc.all():  # whatever the unit, this reaches neighbours and not many more
        cutoff = 2.0 * (structure.volume / len(structure)) ** (1 / 3)
    found = atoms.neighbour_list(
        structure.positions, structure.cell, structure.pbc.tolist(), cutoff=cutoff, threads=1
    )
    centers = np.repeat(np.arange(len(structure)), np.diff(found.offsets))
    shifts = found.shifts @ structure.cell if structure.pbc.any() else None
    _, squares = atoms.edge_vectors(
        structure.positions, found.offsets, found.neighbours, shifts, threads=1
    )
    noble = np.isin(structure.numbers, NOBLE)
    keep = ~(noble[centers] | noble[found.neighbours])
    if not keep.any():
        return None
    ratios = np.sqrt(squares) / (radii[centers] + radii[found.neighbours])
    nearest = np.full(len(structure), np.inf)
    np.minimum.at(nearest, centers[keep], ratios[keep])
    return float(np.median(nearest[np.isfinite(nearest)]))


def _spread(count: int, limit: int) -> list[int]:
    """Up to `limit` indices in runs of neighbours, so that consecutive frames stay together."""
    if count <= limit:
        return list(range(count))
    run = max(1, limit // 10)
    starts = np.linspace(0, count - run, limit // run).astype(int)
    return sorted({int(start) + step for start in starts for step in range(run)})


def _called(structures: Sequence[Structure]) -> str:
    return structures[0].name or "the structures"
