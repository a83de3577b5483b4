"""Neighbours by looking at every pair of atoms in every image of the box."""

import itertools

import numpy as np


def edges(positions, cell, periodic, *, cutoff: float) -> np.ndarray:
    """Rows of centre, neighbour and shift [E, 5], sorted."""
    periodic = np.asarray(periodic, dtype=bool)
    counts = np.zeros(3, dtype=int)
    fractions = np.zeros_like(positions)
    if periodic.any():
        # Distance of the planes between images along each direction, and how far atoms are out.
        known = cell[periodic]
        inverse = np.linalg.pinv(known)
        heights = 1 / np.linalg.norm(inverse, axis=0)
        fractions[:, periodic] = positions @ inverse
        reach = np.ceil(cutoff / heights).astype(int)
        spread = (
            np.ceil(np.ptp(fractions[:, periodic], axis=0)).astype(int) if len(positions) else 0
        )
        counts[periodic] = reach + spread
    found = []
    for shift in itertools.product(*(range(-count, count + 1) for count in counts)):
        moved = positions + np.array(shift, dtype=float) @ np.where(periodic[:, None], cell, 0.0)
        between = moved[None, :, :] - positions[:, None, :]
        near = np.square(between).sum(-1) < cutoff**2
        if not any(shift):
            np.fill_diagonal(near, False)
        i, j = np.nonzero(near)
        found.append(np.column_stack([i, j, np.tile(shift, (len(i), 1))]))
    rows = np.concatenate(found) if found else np.empty((0, 5), dtype=int)
    return rows[np.lexsort(rows.T[::-1])]
