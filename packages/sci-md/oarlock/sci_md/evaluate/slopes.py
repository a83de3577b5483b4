"""From the slopes of edges, ∂E/∂r, to what simulations want; sums are taken in float64."""

import numpy as np

from oarlock.sci_md.neighbours import Neighbourhood
from oarlock.sci_md.structure import Array


def forces_of_slopes(slopes: Array, atoms: Neighbourhood) -> Array:
    """Forces [M, 3] in eV/Å from slopes [E, 3] in eV/Å: an edge pulls at both its ends."""
    centers, count = atoms.centers, len(atoms.positions)
    forces = np.empty((count, 3))
    for axis in range(3):
        forces[:, axis] = np.bincount(centers, slopes[:, axis], count)
        forces[:, axis] -= np.bincount(atoms.neighbours, slopes[:, axis], count)
    return forces


def virial_of_slopes(slopes: Array, vectors: Array) -> Array:
    """−Σ ∂E/∂r ⊗ r, [3, 3] in eV, from slopes [E, 3] and vectors [E, 3]."""
    virial: Array = -slopes.T @ vectors
    return virial


def virials_of_slopes(slopes: Array, atoms: Neighbourhood) -> Array:
    """−Σ ∂E/∂r ⊗ r over the edges that begin at each atom, [rows, 3, 3] in eV."""
    products = slopes[:, :, None] * atoms.vectors()[:, None, :]
    columns = products.reshape(-1, 9).T
    sums = [np.bincount(atoms.centers, column, atoms.rows) for column in columns]
    return np.negative(np.stack(sums, axis=1).reshape(-1, 3, 3), dtype=np.float64)
