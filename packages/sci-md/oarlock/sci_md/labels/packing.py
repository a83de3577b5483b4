"""Molecules thrown into a droplet or a box at random, none too close to another."""

import numpy as np
from ase import Atoms
from scipy.spatial.transform import Rotation

from oarlock.sci_md.structure import Structure


def packed(
    molecule: Atoms,
    *,
    count: int,
    density: float,
    box: bool,
    distance: float = 1.7,
    seed: int,
    attempts: int = 20000,
) -> Structure:
    """`count` copies of a molecule, turned at random, in a cubic box or in a sphere.

    Args:
        density: molecules per Å³ (liquid water: 0.0334).
        box: a periodic box; False gives a droplet without one.
        distance: Å, the least between atoms of two molecules.
        attempts: how many places are tried in all.

    Raises:
        ValueError: a number that is not positive, or no room was found.
    """
    for name, value in (("count", count), ("density", density), ("distance", distance)):
        if not value > 0:
            raise ValueError(f"{name}={value} has to be positive")
    random = np.random.default_rng(seed)
    volume = count / density
    edge = volume ** (1 / 3)
    radius = (3.0 * volume / (4.0 * np.pi)) ** (1 / 3)
    shape = molecule.positions - molecule.positions.mean(axis=0)
    placed = np.empty((0, 3))
    for _ in range(attempts):
        if box:
            center = random.uniform(0.0, edge, 3)
        else:
            center = random.normal(size=3)
            center *= radius * random.uniform() ** (1 / 3) / np.linalg.norm(center)
        tried = Rotation.random(random_state=random).apply(shape) + center
        between = placed[:, None] - tried
        if box:
            between -= edge * np.round(between / edge)
        if np.square(between).sum(axis=-1).min(initial=np.inf) >= distance**2:
            placed = np.concatenate([placed, tried])
            if len(placed) == count * len(molecule):
                break
    else:
        raise ValueError(
            f"only {len(placed) // len(molecule)} of count={count} molecules found room in "
            f"{attempts} attempts: lower density={density} or distance={distance}"
        )
    return Structure(
        numbers=np.tile(molecule.numbers, count),
        positions=placed,
        cell=edge * np.eye(3) if box else np.zeros((3, 3)),
        pbc=np.full(3, box),
        name=f"{molecule.get_chemical_formula()} × {count}",
    )
