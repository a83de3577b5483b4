"""Optimisers of rows, on the servers. What they remember of a row lies behind its values in one record.

A record is float32 [width + extra]; `update` changes records of distinct keys in place. A row whose key is in no
push is not touched, so AdaGrad's sums and Adam's moments and count of steps are those of the row's own pushes (as
in the lazy variants of other parameter servers).
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np


class Optimizer(Protocol):
    """What a table asks of its optimiser."""

    kind: ClassVar[str]

    def extra(self, width: int) -> int:
        """Numbers behind a row's values."""

    def begin(self, records: np.ndarray, width: int) -> None:
        """Fills what lies behind the values of new rows.

        Args:
            records: float32 [n, width + extra].
        """

    def update(self, records: np.ndarray, gradients: np.ndarray) -> None:
        """Takes a step.

        Args:
            records: float32 [n, width + extra], of distinct keys.
            gradients: float32 [n, width].
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Sgd:
    """w -= rate g."""

    kind: ClassVar[str] = "sgd"
    rate: float = 0.1

    def __post_init__(self) -> None:
        _above_zero("rate", self.rate)

    def extra(self, width: int) -> int:
        return 0

    def begin(self, records: np.ndarray, width: int) -> None:
        pass

    def update(self, records: np.ndarray, gradients: np.ndarray) -> None:
        records -= np.float32(self.rate) * gradients


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaGrad:
    """s += g²; w -= rate g / (sqrt(s) + epsilon), element by element (Duchi et al., 2011)."""

    kind: ClassVar[str] = "adagrad"
    rate: float = 0.05
    start: float = 0.0
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _above_zero("rate", self.rate)
        _above_zero("epsilon", self.epsilon)
        if not self.start >= 0:
            raise ValueError(f"start must be at least 0, not {self.start}")

    def extra(self, width: int) -> int:
        return width

    def begin(self, records: np.ndarray, width: int) -> None:
        records[:, width:] = self.start

    def update(self, records: np.ndarray, gradients: np.ndarray) -> None:
        width = gradients.shape[1]
        values, sums = records[:, :width], records[:, width:]
        sums += gradients * gradients
        values -= np.float32(self.rate) * gradients / (np.sqrt(sums) + np.float32(self.epsilon))


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g²; w -= rate m̂ / (sqrt(v̂) + epsilon) (1412.6980).

    The corrections of m̂ and v̂ count the row's own steps, exactly up to 2^24 of them.
    """

    kind: ClassVar[str] = "adam"
    rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _above_zero("rate", self.rate)
        _above_zero("epsilon", self.epsilon)
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be from 0 to below 1, not {getattr(self, name)}")

    def extra(self, width: int) -> int:
        return 2 * width + 1

    def begin(self, records: np.ndarray, width: int) -> None:
        records[:, width:] = 0.0

    def update(self, records: np.ndarray, gradients: np.ndarray) -> None:
        width = gradients.shape[1]
        first, second = records[:, width : 2 * width], records[:, width * 2 : 3 * width]
        first += np.float32(1 - self.beta1) * (gradients - first)
        second += np.float32(1 - self.beta2) * (gradients * gradients - second)
        records[:, -1] += 1.0
        steps = records[:, -1:].astype(np.float64)
        scale = self.rate * np.sqrt(1 - self.beta2**steps) / (1 - self.beta1**steps)
        epsilon = (self.epsilon * np.sqrt(1 - self.beta2**steps)).astype(np.float32)
        records[:, :width] -= scale.astype(np.float32) * first / (np.sqrt(second) + epsilon)


OPTIMIZERS: dict[str, type[Sgd] | type[AdaGrad] | type[Adam]] = {
    one.kind: one for one in (Sgd, AdaGrad, Adam)
}


def _above_zero(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, not {value}")
