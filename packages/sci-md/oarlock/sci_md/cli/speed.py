"""Timing of a potential's evaluations."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ase.build
import numpy as np

if TYPE_CHECKING:
    from oarlock.sci_md.evaluate import Evaluator
    from oarlock.sci_md.structure import Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Args:
    atoms, neighbours: of the crystal, and of an atom on average.
    median, least: seconds of an evaluation.
    lists: seconds of a neighbour search.
    """

    atoms: int
    neighbours: float
    median: float
    least: float
    lists: float


def numbers(text: str) -> list[int]:
    """Raises ValueError for anything but positive numbers separated by commas."""
    try:
        found = [int(one) for one in text.split(",")]
    except ValueError as error:
        raise ValueError(f"atoms={text!r} has to be numbers separated by commas") from error
    if not found or min(found) < 1:
        raise ValueError(f"atoms={text!r} have to be positive")
    return found


def crystal(symbol: str, atoms: int) -> "Structure":
    """A crystal of at least so many atoms, displaced by 0.05 Å."""
    from oarlock.sci_md.structure import Structure

    try:
        cell = ase.build.bulk(symbol, cubic=True)
    except (ValueError, KeyError, RuntimeError):
        cell = ase.build.bulk(symbol, "fcc", a=4.0, cubic=True)  # no crystal of it is tabulated
    times = int(np.ceil((atoms / len(cell)) ** (1 / 3)))
    cell = cell.repeat(times)
    cell.rattle(0.05, seed=0)
    return Structure.from_ase(cell, name=f"{symbol} crystal")


def measure(
    model: Path, sizes: Sequence[int], *, element: str, repeat: int, threads: int
) -> Iterator[Speed]:
    """For crystals of these sizes, one after the other.

    Raises:
        ValueError: `repeat` below 1, an element that the potential does not know, a file that is none.
    """
    from oarlock.sci_md.evaluate import open_evaluator
    from oarlock.sci_md.neighbours import find_neighbours

    if repeat < 1:
        raise ValueError(f"repeat={repeat} has to be at least 1")
    evaluator: Evaluator = open_evaluator(model, threads=threads)
    for size in sizes:
        structure = crystal(element or evaluator.elements[0], size)
        began = time.perf_counter()
        found = find_neighbours(structure, evaluator.elements, evaluator.cutoff, threads=threads)
        lists = time.perf_counter() - began
        evaluator.evaluate(found)
        times = []
        for _ in range(repeat):
            began = time.perf_counter()
            evaluator.evaluate(found)
            times.append(time.perf_counter() - began)
        yield Speed(
            atoms=len(structure),
            neighbours=len(found.neighbours) / len(structure),
            median=float(np.median(times)),
            least=min(times),
            lists=lists,
        )
