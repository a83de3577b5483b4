"""Whether two evaluations of the same weights found the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oarlock.accept.evaluation.lm_eval_tasks import SCORES
from oarlock.llm.eval import Task

#: Of log-probabilities, relative; ours are read with four decimals.
ROUNDING = 2e-5
DECIMALS = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of one task.

    Args:
        same: items on which both found the same, up to rounding.
        items: all of them.
        difference: the largest, in units of what rounding may do; infinite for texts that differ.
        scores: (metric, ours, theirs).
    """

    same: int
    items: int
    difference: float
    scores: tuple[tuple[str, float, float], ...]


def compare(task: Task, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Agreement:
    """Compare the results of both for a task.

    Texts are the same if they are after one space at the beginning, which lm-eval's decoding of a
    continuation drops.

    Raises:
        ValueError: they have not as many items.
    """
    a, b = ours["items"], theirs["items"]
    if len(a) != len(b):
        raise ValueError(f"task {task.name}: {len(a)} items of ours, {len(b)} of theirs")
    differences = [_difference(one, other) for one, other in zip(a, b)]
    return Agreement(
        same=sum(d <= 1 for d in differences),
        items=len(a),
        difference=max(differences, default=0.0),
        scores=tuple(
            (name, ours["scores"][name], theirs["scores"][other])
            for name, other in SCORES[task.output].items()
        ),
    )


def _difference(ours: Any, theirs: Any) -> float:
    """In units of what rounding may do."""
    if isinstance(ours, str):
        return 0.0 if ours.removeprefix(" ") == str(theirs).removeprefix(" ") else float("inf")
    pairs: Sequence[tuple[float, float]] = (
        list(zip(ours, theirs, strict=True)) if isinstance(ours, list) else [(ours, theirs)]
    )
    return max(abs(x - y) / (ROUNDING * abs(y) + DECIMALS) for x, y in pairs)
