"""What an evaluator that does not say so depends on."""

from dataclasses import replace

import numpy as np
from ase.data import atomic_numbers

from oarlock.sci_md.evaluate.evaluator import Evaluator
from oarlock.sci_md.neighbours import Neighbourhood, find_neighbours
from oarlock.sci_md.structure import Structure


def passes_messages(evaluator: Evaluator) -> bool:
    """Whether energies depend on what neighbours' neighbours are.

    Asks for the energy of a few atoms twice: with their images told by shifts, and with images as atoms of
    their own, which have no neighbours. Only what looks no further finds the same.
    """
    atoms = _crystal(evaluator)
    whole, cut = evaluator.evaluate(atoms).energy, evaluator.evaluate(with_ghosts(atoms)).energy
    return abs(whole - cut) > 1e-6 * max(1.0, abs(whole))


def with_ghosts(atoms: Neighbourhood) -> Neighbourhood:
    """The same, with atoms of their own (ghosts, without lists) where edges are shifted."""
    if atoms.shifts is None:
        return atoms
    edges = np.flatnonzero(np.abs(atoms.shifts).max(axis=1) > 0)
    places = atoms.positions[atoms.neighbours[edges]] + atoms.shifts[edges]
    keys = np.column_stack([atoms.neighbours[edges], np.round(places, 6)])
    _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    neighbours = atoms.neighbours.copy()
    neighbours[edges] = len(atoms.positions) + which.reshape(-1)
    return replace(
        atoms,
        positions=np.concatenate([atoms.positions, places[first]]),
        species=np.concatenate([atoms.species, atoms.species[atoms.neighbours[edges[first]]]]),
        neighbours=neighbours,
        shifts=None,
        reverse=None,
    )


def _crystal(evaluator: Evaluator) -> Neighbourhood:
    """Eight atoms of all elements in a box that their neighbours reach out of."""
    generator = np.random.default_rng(1)
    spacing = 0.62 * evaluator.cutoff
    sites = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    numbers = [atomic_numbers[symbol] for symbol in evaluator.elements]
    structure = Structure(
        numbers=np.array([numbers[index % len(numbers)] for index in range(8)]),
        positions=(sites + generator.uniform(-0.1, 0.1, (8, 3))) * spacing,
        cell=np.eye(3) * 2 * spacing,
        pbc=np.array([True, True, True]),
        name="the sample",
    )
    return find_neighbours(structure, evaluator.elements, evaluator.cutoff)
