"""What a set of structures is like, and what energy an atom of each element has in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers

from oarlock.sci_md.structure import Array, Structure


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReferenceEnergies:
    """Args:
    energies: [elements], eV, of an atom of each.
    residual: eV/atom, root mean square of what they leave.
    note: what could not be told from the data, "" if nothing.
    """

    energies: Array
    residual: float
    note: str


def reference_energies(
    structures: Sequence[Structure], elements: Sequence[str]
) -> ReferenceEnergies:
    """The energies ε of min Σ_s ((E_s − Σ_e n_se ε_e) / N_s)².

    If the compositions do not determine them (water alone), the solution is the shortest one, which
    gives every structure the right sum, and `note` says so.

    Raises:
        ValueError: no structure has an energy.
    """
    labelled = [one for one in structures if one.energy is not None and len(one)]
    if not labelled:
        raise ValueError("structures: none has an energy to fit reference energies to")
    numbers = [atomic_numbers[symbol] for symbol in elements]
    counts = np.array([[(one.numbers == z).sum() for z in numbers] for one in labelled], float)
    atoms = np.array([len(one) for one in labelled], float)
    energies = np.array([one.energy for one in labelled], float)
    matrix, values = counts / atoms[:, None], energies / atoms
    solution, _, rank, _ = np.linalg.lstsq(matrix, values, rcond=1e-8)
    residual = float(np.sqrt(np.square(matrix @ solution - values).mean()))
    absent = [symbol for symbol, column in zip(elements, counts.T, strict=True) if not column.any()]
    notes = []
    if absent:
        notes.append(f"{', '.join(absent)} occur nowhere and get the reference energy 0")
    if rank < len(elements) - len(absent):
        notes.append(
            "the compositions determine only sums of the reference energies of "
            f"{', '.join(symbol for symbol in elements if symbol not in absent)}, not each: energies "
            "of other compositions will be meaningless"
        )
    return ReferenceEnergies(energies=solution, residual=residual, note="; ".join(notes))


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Args:
    structures, atoms: counts.
    elements: atoms of each.
    energy_spread: eV/atom, standard deviation of the energy per atom; nan without energies.
    force_rms: eV/Å, of components; nan without forces.
    force_max: eV/Å, largest component.
    labels: structures with an energy, forces, a virial.
    """

    structures: int
    atoms: int
    elements: dict[str, int]
    energy_spread: float
    force_rms: float
    force_max: float
    labels: tuple[int, int, int]


def statistics(structures: Sequence[Structure]) -> Statistics:
    elements: dict[str, int] = {}
    for one in structures:
        for symbol in one.symbols:
            elements[symbol] = elements.get(symbol, 0) + 1
    energies = [one.energy / len(one) for one in structures if one.energy is not None and len(one)]
    forces = [one.forces.ravel() for one in structures if one.forces is not None]
    components = np.concatenate(forces) if forces else np.empty(0)
    return Statistics(
        structures=len(structures),
        atoms=sum(len(one) for one in structures),
        elements=elements,
        energy_spread=float(np.std(energies)) if energies else float("nan"),
        force_rms=float(np.sqrt(np.square(components).mean())) if components.size else float("nan"),
        force_max=float(np.abs(components).max()) if components.size else float("nan"),
        labels=(
            len(energies),
            len(forces),
            sum(one.virial is not None for one in structures),
        ),
    )
