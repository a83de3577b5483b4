"""What a Deep Potential is made of, in NumPy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Layer:
    """y = x' + t tanh(x W + b), x' = x where the width stays, (x, x) where it doubles, else 0.

    Args:
        weight: W, [inputs, outputs].
        bias: b, [outputs].
        timestep: t, [outputs]; None for 1.
    """

    weight: Array
    bias: Array
    timestep: Array | None = None

    def __call__(self, x: Array) -> Array:
        return self.shortcut(x) + self.times * np.tanh(x @ self.weight + self.bias)

    @property
    def times(self) -> Array:
        return np.ones(len(self.bias)) if self.timestep is None else self.timestep

    def shortcut(self, x: Array) -> Array:
        inputs, outputs = self.weight.shape
        if outputs == 2 * inputs:
            return np.concatenate([x, x], axis=-1)
        return x if outputs == inputs else np.zeros((*x.shape[:-1], outputs))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Model:
    """A Deep Potential (DeepPot-SE, 1805.09003) of K elements.

    Args:
        cutoff: Å.
        smooth: Å, from where on neighbours fade.
        axis: features of the right factor of the descriptor.
        one_side: embedding networks depend on the neighbour only.
        mean: [K, 4], of environment rows of atoms of each element.
        deviation: [K, 4].
        sel: [K], expected neighbours of each element; sums are divided by the total.
        reference: [K], eV.
        scale: eV, of what the fitting networks give.
        embeddings: K networks, or K² by centre and neighbour.
        fittings: K networks; the last layer of each has one output and neither tanh nor shortcut.
    """

    cutoff: float
    smooth: float
    axis: int
    one_side: bool
    mean: Array
    deviation: Array
    sel: Array
    reference: Array
    scale: float
    embeddings: Sequence[Sequence[Layer]]
    fittings: Sequence[Sequence[Layer]]

    @property
    def kinds(self) -> int:
        return len(self.reference)

    @property
    def width(self) -> int:
        """Features of an edge."""
        return len(self.embeddings[0][-1].bias)

    def net(self, center: int, neighbour: int) -> int:
        """The number of an embedding network."""
        return neighbour if self.one_side else center * self.kinds + neighbour


def embed(layers: Sequence[Layer], numbers: Array) -> tuple[Array, Array, Array]:
    """Features of an embedding network with their first and second derivative. [n] → 3 × [n, M]."""
    x = numbers[:, None]
    first, second = np.ones_like(x), np.zeros_like(x)
    for layer in layers:
        t = np.tanh(x @ layer.weight + layer.bias)
        slope, curvature = first @ layer.weight, second @ layer.weight
        fall = 1.0 - t * t
        second = layer.shortcut(second) + layer.times * fall * (curvature - 2.0 * t * slope * slope)
        first = layer.shortcut(first) + layer.times * fall * slope
        x = layer.shortcut(x) + layer.times * t
    return x, first, second
