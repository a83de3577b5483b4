"""Potentials, and committees of them, as ASE's calculator.

>>> atoms.calc = OarlockCalculator("copper.safetensors")
>>> atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from oarlock.sci_md.evaluate import EagerEvaluator, Evaluation, Evaluator, open_evaluator
from oarlock.sci_md.neighbours import Neighbourhood
from oarlock.sci_md.potentials import Potential
from oarlock.sci_md.simulate.verlet_list import VerletList
from oarlock.sci_md.structure import Structure

Source: TypeAlias = str | Path | Potential | Evaluator


class OarlockCalculator(Calculator):
    """Energy, forces, stress and energies of atoms by one potential or the mean of several.

    Of several (a committee) there are also, in `results` and through ``get_property``:
    ``energy_deviation`` in eV, ``forces_deviation`` [N] in eV/Å, the roots of the members' mean squared
    distance from their mean, as of DeePMD-kit's ``model_devi``.

    Args:
        source: a file or folder that `evaluate.open_evaluator` opens, a `Potential`, an `Evaluator`, or a
            sequence of these.
        skin: Å; the neighbour list reaches this much further and is found anew only when atoms moved by
            half of it.
        threads: for finding neighbours.

    Raises:
        ValueError: a file that cannot be read, an empty committee; later, in calculations, an element
            that a potential does not know, atoms that overlap, a box that is none, a result that is
            not finite.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(
        self, source: Source | Sequence[Source], *, skin: float = 0.5, threads: int = 1
    ) -> None:
        super().__init__()
        given: list[Source] = list(source) if isinstance(source, list | tuple) else [source]  # type: ignore[list-item]
        if not given:
            raise ValueError("source is empty: give one potential or more")
        self.members = [_evaluator(one) for one in given]
        if len(self.members) > 1:
            self.implemented_properties = [
                *self.implemented_properties,
                "energy_deviation",
                "forces_deviation",
            ]
        cutoff = max(member.cutoff for member in self.members)
        elements = _common(self.members)
        self.neighbours = VerletList(elements, cutoff, skin=skin, threads=threads)
        self._species = [_translation(elements, member) for member in self.members]

    @property
    def elements(self) -> tuple[str, ...]:
        """The elements that all members know."""
        return self.neighbours.elements

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        bare = Structure(
            numbers=self.atoms.numbers,
            positions=self.atoms.positions,
            cell=self.atoms.cell.array,
            pbc=self.atoms.pbc,
        )
        listed = self.neighbours.update(bare)
        said = [
            member.evaluate(_in_species(listed, species))
            for member, species in zip(self.members, self._species, strict=True)
        ]
        self.results = _results(said, self.atoms)


def _evaluator(source: Source) -> Evaluator:
    """What computes, from a file, a potential, or itself."""
    if isinstance(source, str | Path):
        return open_evaluator(source)
    if isinstance(source, Potential):
        return EagerEvaluator(source)
    if callable(getattr(source, "evaluate", None)):
        return source
    raise ValueError(
        f"source is a {type(source).__name__}: give a file, a Potential or an Evaluator, or several"
    )


def _common(members: Sequence[Evaluator]) -> tuple[str, ...]:
    """The elements of the first that all others know too."""
    common = tuple(
        symbol
        for symbol in members[0].elements
        if all(symbol in member.elements for member in members)
    )
    if not common:
        raise ValueError("source: the members of the committee have no element in common")
    return common


def _translation(elements: tuple[str, ...], member: Evaluator) -> np.ndarray | None:
    """From our species to the member's; None where they are the same."""
    if elements == tuple(member.elements):
        return None
    return np.array([member.elements.index(symbol) for symbol in elements], dtype=np.int32)


def _in_species(listed: Neighbourhood, translation: np.ndarray | None) -> Neighbourhood:
    return listed if translation is None else replace(listed, species=translation[listed.species])


def _results(said: Sequence[Evaluation], atoms: Atoms) -> dict[str, object]:
    energies = np.array([one.energy for one in said])
    forces = np.array([one.forces for one in said])  # [members, N, 3]
    energy = float(energies.mean())
    results: dict[str, object] = {
        "energy": energy,
        "free_energy": energy,
        "energies": np.mean([one.atomic_energies for one in said], axis=0),
        "forces": forces.mean(axis=0),
    }
    if atoms.pbc.any() and atoms.cell.rank == 3:
        virial = np.mean([one.virial for one in said], axis=0)
        results["stress"] = full_3x3_to_voigt_6_stress(-virial / atoms.get_volume())
    if len(said) > 1:
        results["energy_deviation"] = float(energies.std())
        spread = np.square(forces - forces.mean(axis=0)).sum(axis=-1)
        results["forces_deviation"] = np.sqrt(spread.mean(axis=0))
    return results
