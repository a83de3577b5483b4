"""A potential of this package, run operator by operator."""

from dataclasses import replace

import numpy as np
import paddle

from oarlock.sci_md import keys
from oarlock.sci_md.evaluate.evaluator import Evaluation
from oarlock.sci_md.evaluate.slopes import virials_of_slopes
from oarlock.sci_md.graph import to_graph
from oarlock.sci_md.neighbours import OVERLAP, Neighbourhood
from oarlock.sci_md.potentials.base import Potential
from oarlock.sci_md.structure import Array


class EagerEvaluator:
    """See `Evaluator`. Sets the potential to evaluation mode."""

    def __init__(self, potential: Potential) -> None:
        potential.eval()
        self.potential = potential
        self.elements = potential.elements
        self.cutoff = potential.cutoff
        self.reach = potential.reach

    def evaluate(self, atoms: Neighbourhood) -> Evaluation:
        result = self.potential(to_graph([within(atoms, self.cutoff)], self.potential.config.dtype))
        evaluation = Evaluation(
            energy=float(result[keys.ENERGY].numpy()[0]),
            atomic_energies=result[keys.ATOMIC_ENERGIES].numpy()[: atoms.owned],
            forces=result[keys.FORCES].numpy().astype(np.float64),
            virial=result[keys.VIRIAL].numpy()[0].astype(np.float64),
        )
        check_finite(evaluation)
        return evaluation

    def atomic_virials(self, atoms: Neighbourhood) -> Array:
        # Each edge by itself: a pair's slopes would all be the first atom's.
        near = replace(within(atoms, self.cutoff), reverse=None)
        graph = to_graph([near], self.potential.config.dtype)
        graph.vectors.stop_gradient = False
        owned = self.potential.atomic_energies(graph)[: near.owned]
        (slopes,) = paddle.grad([owned.sum()], [graph.vectors])
        return virials_of_slopes(slopes.numpy().astype(np.float64), near)


def within(atoms: Neighbourhood, cutoff: float) -> Neighbourhood:
    """Without the edges that are longer than the cut-off (Å).

    Raises:
        ValueError: two atoms overlap.
    """
    _, squares = atoms.vectors_and_squares()
    if len(squares) and squares.min() < OVERLAP**2:
        edge = int(squares.argmin())
        raise ValueError(
            f"atoms {atoms.centers[edge]} and {atoms.neighbours[edge]} are "
            f"{squares[edge] ** 0.5:.2g} Å apart: mend the positions or the box"
        )
    keep = squares < cutoff**2
    if keep.all():
        return atoms
    offsets = np.concatenate([[0], np.cumsum(keep)])[atoms.offsets]
    shifts = None if atoms.shifts is None else atoms.shifts[keep]
    reverse = None
    if atoms.reverse is not None:  # an edge and the one that leads back are equally long
        reverse = (np.cumsum(keep, dtype=np.int32) - 1)[atoms.reverse[keep]]
    return replace(
        atoms, offsets=offsets, neighbours=atoms.neighbours[keep], shifts=shifts, reverse=reverse
    )


def check_finite(evaluation: Evaluation) -> None:
    """Raises ValueError, naming the first atom whose energy or force is not finite."""
    bad = ~np.isfinite(evaluation.forces).all(axis=1)
    bad[: len(evaluation.atomic_energies)] |= ~np.isfinite(evaluation.atomic_energies)
    if bad.any():
        atom = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"the energy or force of atom {atom} is not finite: atoms are too close or the "
            "potential was not trained for this; shorten the timestep or mend the structure"
        )
