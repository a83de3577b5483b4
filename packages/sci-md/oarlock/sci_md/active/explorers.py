"""What visits new structures with a potential: dynamics through ASE or LAMMPS."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import ase.io
import numpy as np
from ase import Atoms

from oarlock.sci_md.calculator import OarlockCalculator
from oarlock.sci_md.simulate import Langevin, thermal_velocities
from oarlock.sci_md.structure import Array, Structure

#: Gives structures, without labels, from the files of a committee's members, a folder to work in, and
#: a seed.
Explorer: TypeAlias = Callable[[Sequence[Path], Path, int], Sequence[Structure]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dynamics:
    """Args:
    starts: structures that dynamics begins with, each at each temperature.
    temperatures: K.
    steps: of each trajectory.
    every: steps between structures that are kept.
    timestep: fs.
    damping: fs, of the Langevin thermostat.
    """

    starts: tuple[Structure, ...]
    temperatures: tuple[float, ...]
    steps: int
    every: int = 50
    timestep: float = 1.0
    damping: float = 100.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", tuple(self.starts))
        object.__setattr__(self, "temperatures", tuple(self.temperatures))
        if not self.starts or not self.temperatures or min(self.temperatures) <= 0:
            raise ValueError("starts and temperatures: give at least one of each, in K above 0")
        if not 1 <= self.every <= self.steps:
            raise ValueError(f"every={self.every} has to be 1 to steps={self.steps}")
        if not (self.timestep > 0 and self.damping > 0):
            raise ValueError("timestep and damping have to be positive, in fs")


@dataclass(frozen=True, kw_only=True, slots=True)
class AseExplorer(Dynamics):
    """Langevin dynamics by the committee's mean forces.

    Args:
        stop: eV/Å; a trajectory ends where an atom's deviation exceeds it.
    """

    stop: float = float("inf")

    def __call__(self, members: Sequence[Path], folder: Path, seed: int) -> Sequence[Structure]:
        del folder
        calculator = OarlockCalculator(list(members))
        visited: list[Structure] = []
        for index, start in enumerate(self.starts):
            for temperature in self.temperatures:
                random = np.random.default_rng([seed, index, round(temperature)])
                atoms = start.to_ase()
                atoms.calc = calculator
                visited += self._trajectory(atoms, temperature, random, start.name)
        return visited

    def _trajectory(
        self, atoms: Atoms, temperature: float, random: np.random.Generator, name: str
    ) -> list[Structure]:
        thermal_velocities(atoms, temperature, seed=int(random.integers(2**31)))
        ensemble = Langevin(temperature=temperature, friction=1.0 / self.damping)
        dynamics = ensemble.dynamics(atoms, self.timestep, random)
        kept = []
        for step in range(self.every, self.steps + 1, self.every):
            try:
                dynamics.run(self.every)
            except (
                ValueError
            ):  # atoms overlap or forces are not finite: the potential has failed here
                break
            kept.append(_bare(atoms.positions, atoms, f"{name} {temperature:g} K step {step}"))
            if np.max(atoms.calc.results.get("forces_deviation", 0.0)) > self.stop:
                break
        return kept


@dataclass(frozen=True, kw_only=True, slots=True)
class LammpsExplorer(Dynamics):
    """Langevin dynamics by the committee's first member in LAMMPS.

    Args:
        ranks: of MPI.
        commands: lines of the input before ``run``, such as another thermostat's.
    """

    ranks: int = 1
    commands: str = ""

    def __call__(self, members: Sequence[Path], folder: Path, seed: int) -> Sequence[Structure]:
        from oarlock.sci_md.lammps.launch import LammpsFailed, input_lines, run

        visited: list[Structure] = []
        for index, start in enumerate(self.starts):
            if not start.pbc.all():
                raise ValueError(f"{start.name or 'a start'} has to repeat in all directions")
            elements = sorted(set(start.symbols))
            for temperature in self.temperatures:
                place = folder / f"lammps-{index}-{temperature:g}K"
                place.mkdir(parents=True, exist_ok=True)
                ase.io.write(
                    place / "start.data",
                    start.to_ase(),
                    format="lammps-data",
                    specorder=elements,
                    masses=True,
                )
                text = self._input(
                    input_lines(members[0].absolute(), elements), temperature, seed + index + 1
                )
                try:
                    run(text, ranks=self.ranks, folder=place, arguments=["-log", "none"])
                except LammpsFailed as error:
                    (place / "failed.txt").write_text(error.output)
                visited += _dumped(place / "frames.dump", start, elements, temperature)
        return visited

    def _input(self, potential: str, temperature: float, seed: int) -> str:
        picoseconds = 1e-3
        return "\n".join(
            [
                "units metal",
                "atom_style atomic",
                "boundary p p p",
                "read_data start.data",
                potential,
                f"velocity all create {temperature} {seed} mom yes rot no",
                "fix move all nve",
                f"fix bath all langevin {temperature} {temperature} {self.damping * picoseconds} {seed}",
                f"timestep {self.timestep * picoseconds}",
                f"dump frames all custom {self.every} frames.dump id type xu yu zu",
                "dump_modify frames sort id format float %20.15g",
                self.commands,
                f"run {self.steps}",
                "",
            ]
        )


def _dumped(
    file: Path, start: Structure, elements: Sequence[str], temperature: float
) -> list[Structure]:
    """The frames that LAMMPS wrote, without the first, which is the start."""
    if not file.is_file():
        return []
    frames = ase.io.read(file, index=":", format="lammps-dump-text", specorder=list(elements))
    return [
        _bare(frame.positions, start.to_ase(), f"{start.name} {temperature:g} K frame {index}")
        for index, frame in enumerate(frames)
        if index
    ]


def _bare(positions: Array, atoms: Atoms, name: str) -> Structure:
    return Structure(
        numbers=atoms.numbers,
        positions=positions,
        cell=atoms.cell.array,
        pbc=atoms.pbc,
        name=name,
    )
