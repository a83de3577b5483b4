"""Loss increase of a change of one layer's weight, from its gradient and Fisher matrix."""

import numpy as np

from .fisher import BlockEffect, LayerFisher


def quadratic(change: np.ndarray, fisher: LayerFisher) -> float:
    """tr(D^T A D G) / 2 for a change D, with the Kronecker factors A [in, in] and G [out, out]."""
    return 0.5 * float(np.einsum("io,io->", fisher.inputs @ change, change @ fisher.outputs))


def linear(change: np.ndarray, fisher: LayerFisher) -> float:
    """The gradient of the mean loss along a change."""
    return float(np.einsum("io,io->", fisher.gradient, change))


def credible(linear: float, quadratic: float, predictions: float) -> float:
    """A first-order term less what the sampling of the data explains of it.

    The gradient is a mean over n predictions, so that its product with a change D has the variance
    D^T F D / n = 2 quadratic / n even where the true gradient is zero. The term is shrunk by
    (1 - variance / term^2), to zero where the variance is the larger (James and Stein's positive part).
    """
    variance = 2 * quadratic / max(predictions, 1)
    square = linear * linear
    return linear * (1 - variance / square) if square > variance else 0.0


def high_rate(step: np.ndarray, group: int, fisher: LayerFisher) -> float:
    """Expected ``quadratic`` of rounding noise of variance step^2 / 12, independent in each weight.

    Args:
        step: distances of the grids, [groups, out].
        group: rows of a group.
        fisher: of the layer.
    """
    rows = np.diagonal(fisher.inputs).reshape(-1, group).sum(1)  # [groups]
    return float(rows @ np.square(step) @ np.diagonal(fisher.outputs)) / 24


def block_removal(effect: BlockEffect) -> tuple[float, float, float]:
    """First and second order of the loss increase when a block's output becomes its input.

    The third number is that of predictions.
    """
    _, along, squared, _, predictions = effect.sums
    return along / predictions, 0.5 * squared / predictions, predictions
