"""Arithmetic by number of digits."""

import itertools
from typing import Any

import numpy as np

from oarlock.llm.eval.data import Finder

OPERATIONS = {"+": "plus", "-": "minus", "*": "times"}


def make(
    data: Finder, *, digits: list[int], operations: list[str], items: int, seed: int
) -> list[dict[str, Any]]:
    """Two numbers of so many digits each and an operation; the same number of items for each pair.

    Fields: a, b, operation, word, digits, answer.
    """
    wrong = [operation for operation in operations if operation not in OPERATIONS]
    if wrong or not digits or min(digits) < 1 or items < 1:
        raise ValueError(f"unknown operations {wrong}, or {digits=}, {items=} below 1")
    rng = np.random.default_rng(seed)
    kinds = itertools.cycle(itertools.product(digits, operations))
    rows: list[dict[str, Any]] = []
    seen: set[tuple[int, int, str]] = set()
    tries = 0
    while len(rows) < items and tries < 100 * items:
        tries += 1
        length, operation = next(kinds)
        low, high = (10 ** (length - 1), 10**length) if length > 1 else (0, 10)
        a, b = (int(x) for x in rng.integers(low, high, 2))
        if (a, b, operation) in seen:
            continue
        seen.add((a, b, operation))
        answer = {"+": a + b, "-": a - b, "*": a * b}[operation]
        rows.append(
            {
                "a": a,
                "b": b,
                "operation": operation,
                "word": OPERATIONS[operation],
                "digits": length,
                "answer": answer,
            }
        )
    if len(rows) < items:
        raise ValueError(f"there are no {items} different items of {digits} digits")
    return rows
