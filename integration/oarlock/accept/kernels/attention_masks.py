"""The masks that attention is timed under, and how a user would write each with causal calls only.

A mask is a dictionary of plain JSON: `kind`, `lengths` of its parts, and `parts`, a list of
[[row begin, row end], [[key begin, key end], ...]]: rows that attend to some keys, in one call of a
library's attention. With parts a library does no work for most of what is hidden, at the price of
several calls.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oarlock.native import masks

Spec = dict[str, Any]


def causal(context: int, seed: int) -> Spec:
    """Each row sees what comes before it."""
    return {"kind": "causal", "lengths": [context], "parts": [[[0, context], [[0, context]]]]}


def document(context: int, seed: int) -> Spec:
    """Texts packed into one sequence; lengths are log-normal about a sixth of the context."""
    rng = np.random.default_rng(seed)
    lengths: list[int] = []
    while sum(lengths) < context:
        drawn = int(rng.lognormal(np.log(context / 6), 0.8)) + 1
        lengths.append(min(drawn, context - sum(lengths)))
    ends = np.cumsum(lengths).tolist()
    spans = [[end - length, end] for end, length in zip(ends, lengths)]
    return {"kind": "document", "lengths": lengths, "parts": [[span, [span]] for span in spans]}


def window(context: int, seed: int) -> Spec:
    """Each row sees a quarter of the context before it."""
    size = context // 4
    starts = range(0, context, size)
    parts = [[[at, at + size], [[max(at - size, 0), at + size]]] for at in starts]
    return {"kind": "window", "lengths": [context, size], "parts": parts}


def question(context: int, seed: int) -> Spec:
    """A question of a third of the context and four answers that do not see each other."""
    first = context // 3
    rest = context - first
    lengths = [first, *(rest // 4 for _ in range(3)), rest - 3 * (rest // 4)]
    ends = np.cumsum(lengths).tolist()
    parts = [[[0, first], [[0, first]]]]
    for begin, end in zip(ends, ends[1:]):
        parts.append([[begin, end], [[0, first], [begin, end]]])
    return {"kind": "question", "lengths": lengths, "parts": parts}


KINDS: Mapping[str, Callable[[int, int], Spec]] = {
    "causal": causal,
    "document": document,
    "window": window,
    "question": question,
}


def mask_of(spec: Spec) -> masks.Mask:
    """The mask of `oarlock.native.masks`."""
    lengths = spec["lengths"]
    if spec["kind"] == "causal":
        return masks.causal()
    if spec["kind"] == "document":
        return masks.document(lengths)
    if spec["kind"] == "window":
        return masks.sliding_window(*lengths)
    if spec["kind"] == "question":
        return masks.shared_question(lengths[0], lengths[1:])
    raise ValueError(f"no mask of kind {spec['kind']!r}; there are {', '.join(KINDS)}")
