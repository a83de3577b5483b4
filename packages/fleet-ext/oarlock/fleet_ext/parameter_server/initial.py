"""What rows begin with: functions of the key alone."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from oarlock.fleet_ext.parameter_server.hashing import salt_of, uniform_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The same number everywhere."""

    kind: ClassVar[str] = "constant"
    value: float = 0.0

    def rows(self, keys: np.ndarray, width: int) -> np.ndarray:
        """
        Args:
            keys: int64 [n].

        Returns:
            float32 [n, width].
        """
        return np.full((len(keys), width), self.value, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Between -scale and scale."""

    kind: ClassVar[str] = "uniform"
    scale: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        _check("scale", self.scale)

    def rows(self, keys: np.ndarray, width: int) -> np.ndarray:
        found = uniform_of(keys, salt_of("uniform", self.seed), width)
        return ((2.0 * found - 1.0) * self.scale).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Normal:
    """Gaussian around 0, by Box and Muller's transformation."""

    kind: ClassVar[str] = "normal"
    deviation: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        _check("deviation", self.deviation)

    def rows(self, keys: np.ndarray, width: int) -> np.ndarray:
        found = uniform_of(keys, salt_of("normal", self.seed), 2 * width)
        radius = np.sqrt(-2.0 * np.log1p(-found[:, :width]))
        angle = 2.0 * np.pi * found[:, width:]
        return (self.deviation * radius * np.cos(angle)).astype(np.float32)


Initial = Constant | Uniform | Normal
INITIALS: dict[str, type[Initial]] = {one.kind: one for one in (Constant, Uniform, Normal)}


def _check(name: str, value: float) -> None:
    if not value >= 0:
        raise ValueError(f"{name} must be at least 0, not {value}")
