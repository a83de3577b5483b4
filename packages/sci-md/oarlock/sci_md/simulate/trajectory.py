"""The course of a simulation as arrays, which all analyses take."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import ase.io
import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from oarlock.sci_md.structure import Array
from oarlock.sci_md.units import FEMTOSECOND


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trajectory:
    """Frames at equal intervals.

    Args:
        numbers: [N], atomic numbers.
        positions: [T, N, 3], Å; not wrapped into the box (`unwrapped` mends it).
        velocities: [T, N, 3], Å/fs, or None.
        cells: [T, 3, 3], Å.
        pbc: [3] bool.
        times: [T], fs, in equal steps.
        energies: [T], eV, potential; NaN where unknown.
        masses: [N], u; empty for those of the elements.

    Raises:
        ValueError: shapes that do not fit, or unequal steps of time.
    """

    numbers: NDArray[np.int64]
    positions: Array
    velocities: Array | None = None
    cells: Array
    pbc: NDArray[np.bool_]
    times: Array
    energies: Array | None = None
    masses: Array = field(default_factory=lambda: np.empty(0))

    def __post_init__(self) -> None:
        frames, atoms = len(self.times), len(self.numbers)
        if not len(self.masses):
            object.__setattr__(self, "masses", atomic_masses[self.numbers])
        shapes = {
            "positions": (frames, atoms, 3),
            "velocities": (frames, atoms, 3),
            "cells": (frames, 3, 3),
            "pbc": (3,),
            "energies": (frames,),
            "masses": (atoms,),
        }
        for name, shape in shapes.items():
            values = getattr(self, name)
            if values is not None and np.shape(values) != shape:
                raise ValueError(
                    f"{name} has the shape {list(np.shape(values))}, not {list(shape)}"
                )
        steps = np.diff(self.times)
        if frames > 1 and not (steps[0] > 0 and np.allclose(steps, steps[0], rtol=1e-6)):
            raise ValueError("times have to rise in equal steps: leave out no frame")

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, frames: slice) -> Self:
        """Some of the frames."""
        if not isinstance(frames, slice):
            raise ValueError(f"frames={frames!r} has to be a slice, such as trajectory[100:]")
        return replace(
            self,
            positions=self.positions[frames],
            velocities=None if self.velocities is None else self.velocities[frames],
            cells=self.cells[frames],
            times=self.times[frames],
            energies=None if self.energies is None else self.energies[frames],
        )

    @property
    def interval(self) -> float:
        """fs between two frames."""
        if len(self) < 2:
            raise ValueError("a trajectory of one frame has no interval")
        return float(self.times[1] - self.times[0])

    @property
    def volumes(self) -> Array:
        """[T], Å³."""
        if not self.pbc.all():
            raise ValueError("a volume needs a box that repeats along all three directions")
        return np.abs(np.linalg.det(self.cells))

    def atoms_of(self, element: str | None) -> NDArray[np.int64]:
        """Indices of the atoms of an element (None: all).

        Raises:
            ValueError: there is none.
        """
        if element is None:
            return np.arange(len(self.numbers))
        found = np.flatnonzero(self.numbers == atomic_numbers.get(element, -1))
        if not len(found):
            raise ValueError(f"element={element!r} does not occur")
        return found

    def unwrapped(self) -> Self:
        """With the jumps undone that wrapping into the box made: no atom may move by half a box
        between two frames."""
        if not self.pbc.any():
            return self
        steps = np.diff(self.positions, axis=0)
        whole = np.linalg.pinv(self.cells[1:])
        jumps = np.round(steps @ whole) * self.pbc
        positions = np.array(self.positions)
        positions[1:] -= np.cumsum(jumps @ self.cells[1:], axis=0)
        return replace(self, positions=positions)

    @classmethod
    def from_frames(cls, frames: Sequence[Atoms], interval: float) -> Self:
        """From ASE's atoms, `interval` fs apart."""
        if not frames:
            raise ValueError("frames is empty: give at least one")
        first = frames[0]
        if any(not np.array_equal(one.numbers, first.numbers) for one in frames):
            raise ValueError("frames hold different atoms: a trajectory has the same throughout")
        moving = all(one.has("momenta") for one in frames)
        results = [{} if one.calc is None else one.calc.results for one in frames]
        return cls(
            numbers=first.numbers.astype(np.int64),
            positions=np.array([one.positions for one in frames]),
            velocities=(
                np.array([one.get_velocities() for one in frames]) * FEMTOSECOND if moving else None
            ),
            cells=np.array([one.cell.array for one in frames]),
            pbc=np.array(first.pbc),
            times=np.arange(len(frames)) * float(interval),
            energies=np.array([one.get("energy", np.nan) for one in results]),
            masses=first.get_masses(),
        )

    @classmethod
    def read(cls, path: str | Path, interval: float) -> Self:
        """From any file of frames that ASE reads, `interval` fs apart."""
        if not Path(path).is_file():
            raise ValueError(f"path={str(path)!r} is no file")
        return cls.from_frames(list(ase.io.iread(path)), interval)
