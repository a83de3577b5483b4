"""Molecules put into a droplet or a box, turned at random, none too close to another."""

from typing import Literal

import numpy as np
from ase import Atoms
from scipy.spatial.transform import Rotation

from oarlock.sci_md.structure import Array, Structure


def packed(
    molecule: Atoms,
    *,
    count: int,
    density: float,
    box: bool,
    places: Literal["random", "lattice"] = "random",
    distance: float = 1.7,
    seed: int,
    attempts: int = 20000,
) -> Structure:
    """`count` copies of a molecule, turned at random, in a periodic cubic box or in a droplet.

    Args:
        density: molecules per Å³ (liquid water: 0.0334).
        box: a periodic box; False gives a droplet without one.
        places: anywhere, or the sites of a simple cubic lattice (in a box `count` has to be a cube), which
            makes a gentler start of dynamics.
        distance: Å, the least between atoms of two molecules.
        attempts: how many places and orientations are tried in all.

    Raises:
        ValueError: a number that is not positive or not a cube, or no room was found.
    """
    for name, value in (("count", count), ("density", density), ("distance", distance)):
        if not value > 0:
            raise ValueError(f"{name}={value} has to be positive")
    if places not in ("random", "lattice"):
        raise ValueError(f"places={places!r} has to be 'random' or 'lattice'")
    random = np.random.default_rng(seed)
    edge = (count / density) ** (1 / 3)
    sites = _sites(count, density, box=box) if places == "lattice" else None
    shape = molecule.positions - molecule.positions.mean(axis=0)
    placed = np.empty((0, 3))
    for _ in range(attempts):
        if sites is not None:
            center = sites[len(placed) // len(molecule)]
        elif box:
            center = random.uniform(0.0, edge, 3)
        else:
            center = random.normal(size=3)
            radius = (3.0 / (4.0 * np.pi)) ** (1 / 3) * edge
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
        name=f"{count} {molecule.get_chemical_formula()}",
    )


def _sites(count: int, density: float, *, box: bool) -> Array:
    """[count, 3], Å: the whole lattice of a box, or its sites nearest to the middle."""
    along = round(count ** (1 / 3)) if box else int(np.ceil(count ** (1 / 3))) + 2
    if box and along**3 != count:
        raise ValueError(f"count={count} is no cube: a lattice in a box has 8, 27, 64, 125 …")
    grid = np.stack(np.meshgrid(*[np.arange(along)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    sites = (grid + 0.5) * density ** (-1 / 3)
    if box:
        return sites
    return sites[
        np.argsort(np.linalg.norm(sites - sites.mean(axis=0), axis=1), kind="stable")[:count]
    ]
