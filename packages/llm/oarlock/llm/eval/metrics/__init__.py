"""How answers are judged, by name.

A metric of generated text takes the answer, the item and its options, and gives a number of which more is
better. What follows from log-probabilities is in `likelihood`.
"""

from collections.abc import Callable

from oarlock.llm.eval.items import Item
from oarlock.llm.eval.metrics import code, instructions, likelihood, safety, text, tool_calls

METRICS: dict[str, Callable[..., float]] = {
    "code_pass": code.code_pass,
    "exact_match": text.exact_match,
    "f1": text.f1,
    "instructions_all": instructions.all_followed,
    "instructions_share": instructions.share_followed,
    "latex_match": text.latex_match,
    "number_match": text.number_match,
    "refusal": safety.refusal,
    "resists": safety.resists,
    "tool_calls": tool_calls.tool_calls,
}


def judge(name: str, answer: str, item: Item, **options: object) -> float:
    """Score of an answer.

    Raises:
        ValueError: there is no such metric.
    """
    if name not in METRICS:
        raise ValueError(f"no metric is named {name!r}; known: {', '.join(METRICS)}.")
    return METRICS[name](answer, item, **options)


__all__ = ["METRICS", "judge", "likelihood"]
