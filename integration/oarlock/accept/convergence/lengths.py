"""The length of training at which a loss would be reached, from runs of other lengths."""

import math
from collections.abc import Iterable


def length_to(ends: Iterable[tuple[int, float]], loss: float) -> float:
    """Length of a run that would end at `loss`, linear in the logarithm of the length.

    Taken from the two lengths around it, or else from the two nearest.

    Args:
        ends: (steps, loss at the end) of at least two runs, each to the end of its own schedule.
        loss: to reach.

    Raises:
        ValueError: the longer of the two ended at a higher loss.
    """
    runs = sorted(ends)
    if len(runs) < 2:
        raise ValueError(f"a length needs two runs to be found between, got {runs}")
    reached = next((i for i, (_, end) in enumerate(runs) if end <= loss), len(runs) - 1)
    (short, high), (long, low) = runs[max(1, reached) - 1], runs[max(1, reached)]
    if low >= high:
        raise ValueError(f"a longer run ended at a higher loss: {runs}")
    return math.exp(math.log(short) + (loss - high) / (low - high) * math.log(long / short))
