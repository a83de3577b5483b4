"""Programs judged by what they return."""

import math
from typing import Any

from oarlock.llm.eval import sandbox
from oarlock.llm.eval.items import Item


def code_pass(
    answer: str,
    item: Item,
    *,
    allow_weak: bool = False,
    wall_s: float = 10.0,
    cpu_s: int = 5,
    memory_mb: int = 512,
) -> float:
    """1 if the program returns what is expected for every call (pass@1 of one greedy answer).

    Source: arXiv 2107.03374.

    Raises:
        SandboxUnavailable: this system cannot confine the program, and ``allow_weak`` is False.
    """
    fields = item.fields
    outcome = sandbox.call(
        answer,
        fields["entry"],
        fields["calls"],
        limits=sandbox.Limits(wall_s=wall_s, cpu_s=cpu_s, memory_mb=memory_mb),
        allow_weak=allow_weak,
    )
    if outcome.status != "ok" or any(outcome.errors):
        return 0.0
    return float(
        len(outcome.values) == len(fields["expected"])
        and all(equal(a, b) for a, b in zip(outcome.values, fields["expected"]))
    )


def equal(found: Any, expected: Any) -> bool:
    """The same value; numbers up to 1e-9 of each other, True is not 1."""
    if isinstance(expected, bool) or isinstance(found, bool):
        return found is expected
    if isinstance(expected, (int, float)) and isinstance(found, (int, float)):
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(equal(a, b) for a, b in zip(found, expected))
    return type(found) is type(expected) and found == expected
