"""States that are parts of another one, under names of their own."""

from collections.abc import Mapping

import numpy as np


def named(prefix: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A part of a state, of which `part_of` makes it again."""
    return {f"{prefix}.{name}": one for name, one in state.items()}


def part_of(state: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """What `named` put into a state under that prefix; empty where there is nothing."""
    own = f"{prefix}."
    return {name.removeprefix(own): one for name, one in state.items() if name.startswith(own)}
