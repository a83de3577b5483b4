"""From the text that a model wrote to the answer that is judged."""

import re
from collections.abc import Callable, Sequence
from typing import Literal

from oarlock.llm.eval.task import FilterStep

#: What an answer is where a filter finds none: judged like any other, and right nowhere.
NOTHING = "[no answer]"


def _regex(text: str, *, pattern: str, take: Literal["first", "last"] = "first") -> str:
    """The pattern's group (the whole match if it has none), of the first or last match."""
    found = list(re.finditer(pattern, text))
    if not found:
        return NOTHING
    match = found[0 if take == "first" else -1]
    return (match[1] if match.re.groups else match[0]).strip()


def _strip(text: str) -> str:
    return text.strip()


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0].strip() if lines else NOTHING


def _lower(text: str) -> str:
    return text.lower()


def _remove(text: str, *, pattern: str) -> str:
    return re.sub(pattern, "", text)


def _letter(text: str, *, letters: str) -> str:
    """One of ``letters`` that stands alone or in brackets; an answer that is announced comes first."""
    announced = rf"(?:answer is|answer:|答案是|答案为|答案：|选)\s*\(?([{letters}])\b"
    for pattern in (announced, rf"\(([{letters}])\)", rf"\b([{letters}])\b"):
        if found := re.search(pattern, text):
            return found[1]
    return NOTHING


def _code(text: str) -> str:
    """The first fenced block, the last part of one cut off; the text itself without fences."""
    fenced = re.search(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", text, re.DOTALL)
    return fenced[1] if fenced else text


FILTERS: dict[str, Callable[..., str]] = {
    "regex": _regex,
    "strip": _strip,
    "first_line": _first_line,
    "lower": _lower,
    "remove": _remove,
    "letter": _letter,
    "code": _code,
}


def apply(steps: Sequence[FilterStep], text: str) -> str:
    """The answer after all steps, in order.

    Raises:
        ValueError: no filter has that name.
    """
    for step in steps:
        if step.kind not in FILTERS:
            raise ValueError(f"no filter is named {step.kind!r}; known: {', '.join(FILTERS)}.")
        text = FILTERS[step.kind](text, **step.options)
    return text
