"""In which order structures are trained on, and how many at once."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from oarlock.sci_md.data.dataset import Dataset


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSize:
    """Limits of a batch; a structure that is larger than them is a batch of its own.

    Args:
        structures, atoms, edges: at most so many together; None for no limit.
    """

    structures: int | None = 1
    atoms: int | None = None
    edges: int | None = None

    def __post_init__(self) -> None:
        limits = {"structures": self.structures, "atoms": self.atoms, "edges": self.edges}
        for name, limit in limits.items():
            if limit is not None and limit < 1:
                raise ValueError(f"{name}={limit} has to be at least 1")
        if all(limit is None for limit in limits.values()):
            raise ValueError("structures, atoms and edges are all None: give one limit at least")


def batches(
    dataset: Dataset, size: BatchSize, *, seed: int | None = None, epoch: int = 0, start: int = 0
) -> Iterator[NDArray[np.int64]]:
    """The indices of each batch of one pass over a dataset.

    Args:
        seed: with the epoch, decides the order; None for the dataset's order.
        start: how many batches to leave out, those that were had before an interruption.
    """
    order = np.arange(len(dataset))
    if seed is not None:
        order = np.random.default_rng([seed, epoch]).permutation(len(dataset))
    yield from _packed(dataset, size, order)[start:]


def batch_count(
    dataset: Dataset, size: BatchSize, *, seed: int | None = None, epoch: int = 0
) -> int:
    """How many batches that pass has."""
    return sum(1 for _ in batches(dataset, size, seed=seed, epoch=epoch))


def _packed(dataset: Dataset, size: BatchSize, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    packed: list[list[int]] = []
    atoms = edges = 0
    for index in order:
        more_atoms, more_edges = int(dataset.atoms[index]), int(dataset.edges[index])
        fits = (
            bool(packed)
            and (size.structures is None or len(packed[-1]) < size.structures)
            and (size.atoms is None or atoms + more_atoms <= size.atoms)
            and (size.edges is None or edges + more_edges <= size.edges)
        )
        if not fits:
            packed.append([])
            atoms = edges = 0
        packed[-1].append(int(index))
        atoms, edges = atoms + more_atoms, edges + more_edges
    return [np.array(one, dtype=np.int64) for one in packed]
