"""Structures to label: displaced, strained, scaled, pairs, and those that dynamics visits."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.data import atomic_numbers, covalent_radii
from ase.md.langevin import Langevin

from oarlock.sci_md.neighbours import find_neighbours
from oarlock.sci_md.simulate.velocities import thermal_velocities
from oarlock.sci_md.structure import Array, Structure, elements_of
from oarlock.sci_md.units import FEMTOSECOND

#: Atoms closer than this part of the sum of their covalent radii are not worth a label.
CLOSE = 0.6


def closeness(structure: Structure) -> float:
    """The smallest distance by the sum of the two covalent radii; infinite for one atom."""
    radii = covalent_radii[structure.numbers]
    reach = 2.0 * float(radii.max())
    atoms = find_neighbours(structure, elements_of([structure]), reach)
    if not len(atoms.neighbours):
        return float("inf")
    distances = np.linalg.norm(atoms.vectors(), axis=1)
    return float((distances / (radii[atoms.centers] + radii[atoms.neighbours])).min())


def rattled(
    structure: Structure, *, count: int, deviation: float, seed: int, closest: float = CLOSE
) -> list[Structure]:
    """Copies with Gaussian displacements.

    Args:
        deviation: Å, of each coordinate.
        closest: copies in which two atoms are closer than this part of their radii are drawn again.

    Raises:
        ValueError: deviations so large that ten copies in a row are too close.
    """
    _positive(count=count, deviation=deviation)
    random = np.random.default_rng(seed)

    def draw() -> Structure:
        return _moved(
            structure, structure.positions + random.normal(0.0, deviation, (len(structure), 3))
        )

    return [
        _named(_drawn(draw, closest, f"deviation={deviation}"), structure, f"rattled {index}")
        for index in range(count)
    ]


def strained(
    structure: Structure,
    *,
    count: int,
    magnitude: float,
    deviation: float = 0.0,
    seed: int,
    closest: float = CLOSE,
) -> list[Structure]:
    """Copies whose box and atoms have a random symmetric strain.

    Args:
        magnitude: components of the strain are uniform in ± this.
        deviation: Å, Gaussian displacements besides.
    """
    _positive(count=count, magnitude=magnitude)
    _needs_box(structure, "strained")
    random = np.random.default_rng(seed)

    def draw() -> Structure:
        strain = random.uniform(-magnitude, magnitude, (3, 3))
        shaped = deformed(structure, 0.5 * (strain + strain.T))
        shift = random.normal(0.0, 1.0, (len(structure), 3)) * deviation
        return _moved(shaped, shaped.positions + shift)

    return [
        _named(_drawn(draw, closest, f"magnitude={magnitude}"), structure, f"strained {index}")
        for index in range(count)
    ]


def volume_scan(structure: Structure, *, scales: Sequence[float]) -> list[Structure]:
    """Copies with box and positions scaled; `scales` are of lengths, such as 0.95 … 1.05."""
    _needs_box(structure, "volume_scan")
    _positive(**{f"scales[{index}]": scale for index, scale in enumerate(scales)})
    return [
        _named(deformed(structure, (scale - 1.0) * np.eye(3)), structure, f"scaled {scale:g}")
        for scale in scales
    ]


def dimers(
    elements: Sequence[str], *, distances: Sequence[float], same: bool = True
) -> list[Structure]:
    """Every pair of elements at every distance (Å), without a box.

    Args:
        same: also pairs of one element.
    """
    _positive(**{f"distances[{index}]": distance for index, distance in enumerate(distances)})
    pairs = [
        pair for pair in combinations_with_replacement(elements, 2) if same or pair[0] != pair[1]
    ]
    return [
        Structure(
            numbers=np.array([atomic_numbers[first], atomic_numbers[second]]),
            positions=np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]]),
            cell=np.zeros((3, 3)),
            pbc=np.zeros(3, dtype=bool),
            name=f"{first}-{second} {distance:g} Å",
        )
        for first, second in pairs
        for distance in distances
    ]


def visited(
    structure: Structure,
    calculator: Calculator,
    *,
    temperatures: Sequence[float],
    frames: int,
    every: int = 50,
    equilibration: int = 200,
    timestep: float = 0.5,
    friction: float = 0.02,
    seed: int,
) -> list[Structure]:
    """What Langevin dynamics visits at each temperature.

    Args:
        calculator: of ASE; a label method through `LabelCalculator`, or a potential.
        temperatures: K; each starts from the last structure of the one before.
        frames: structures at each temperature.
        every: steps between two of them: neighbours in time are nearly the same structure.
        equilibration: steps before the first, at each temperature.
        timestep: fs.
        friction: 1/fs.
    """
    _positive(frames=frames, every=every, timestep=timestep, friction=friction)
    _positive(**{f"temperatures[{index}]": one for index, one in enumerate(temperatures)})
    atoms = Atoms(
        numbers=structure.numbers,
        positions=structure.positions,
        cell=structure.cell,
        pbc=structure.pbc,
        calculator=calculator,
    )
    random = np.random.default_rng(seed)
    seen = []
    for temperature in temperatures:
        thermal_velocities(atoms, temperature, seed=int(random.integers(2**31)))
        dynamics = Langevin(
            atoms,
            timestep * FEMTOSECOND,
            temperature_K=temperature,
            friction=friction / FEMTOSECOND,
            fixcm=False,
            rng=random,
        )
        dynamics.run(equilibration)
        for index in range(frames):
            dynamics.run(every)
            bare = Structure.from_ase(atoms.copy())
            seen.append(_named(bare, structure, f"{temperature:g} K {index}"))
    return seen


def deformed(structure: Structure, strain: Array) -> Structure:
    """Box and positions multiplied by 1 + strain ([3, 3]); labels are dropped."""
    shape = np.eye(3) + strain
    return Structure(
        numbers=structure.numbers,
        positions=structure.positions @ shape.T,
        cell=structure.cell @ shape.T,
        pbc=structure.pbc,
        name=structure.name,
    )


def _moved(structure: Structure, positions: Array) -> Structure:
    return Structure(
        numbers=structure.numbers, positions=positions, cell=structure.cell, pbc=structure.pbc
    )


def _named(structure: Structure, of: Structure, what: str) -> Structure:
    return replace(structure, name=f"{of.name} {what}".strip())


def _drawn(draw: Callable[[], Structure], closest: float, what: str) -> Structure:
    for _ in range(10):
        drawn = draw()
        if closeness(drawn) >= closest:
            return drawn
    raise ValueError(
        f"{what} moves atoms closer than {closest} of their radii ten times in a row: "
        "choose it smaller, or closest"
    )


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}={value} has to be positive")


def _needs_box(structure: Structure, what: str) -> None:
    if not structure.pbc.any():
        raise ValueError(
            f"{what} needs a structure with a box, {structure.name or 'this'} has none"
        )
