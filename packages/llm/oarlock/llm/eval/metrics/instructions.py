"""Whether a text keeps the rules that it was written under."""

import json
import re
from collections.abc import Callable
from typing import Any

from oarlock.llm.eval.items import Item

_ENDS = re.compile(r"[.!?。！？]+[\"'”’)]*(?=\s|$|[^\s.!?。！？])")
_CJK = re.compile(r"[\u4e00-\u9fff]")


def _sentences(text: str, *, count: int) -> bool:
    return len([part for part in _ENDS.split(text.strip()) if part.strip()]) == count


def _has_word(text: str, word: str) -> bool:
    if _CJK.search(word):
        return word in text
    return re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) is not None


def _at_most(text: str, *, count: int, language: str) -> bool:
    length = len(_CJK.findall(text)) if language == "zh" else len(text.split())
    return length <= count


def _bullets(text: str, *, count: int) -> bool:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return len(lines) == count and all(line.startswith("- ") for line in lines)


def _json_keys(text: str, *, keys: list[str]) -> bool:
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*?)\n?```\s*", text, re.DOTALL)
    try:
        value = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and sorted(value) == keys


def _cased(text: str, change: Callable[[str], str]) -> bool:
    return any(c.isalpha() for c in text) and change(text) == text


CHECKS: dict[str, Callable[..., bool]] = {
    "sentences": _sentences,
    "contains": lambda text, *, text_: _has_word(text, text_),
    "lacks": lambda text, *, text_: not _has_word(text, text_),
    "at_most": _at_most,
    "ends": lambda text, *, text_: text.rstrip().endswith(text_),
    "no_digits": lambda text: not re.search(r"[0-9]", text),
    "upper": lambda text: _cased(text, str.upper),
    "lower": lambda text: _cased(text, str.lower),
    "bullets": _bullets,
    "json_keys": _json_keys,
}


def follows(text: str, check: dict[str, Any]) -> bool:
    """Whether a text keeps one rule; an empty text keeps none.

    Raises:
        ValueError: the rule is unknown.
    """
    options = {("text_" if key == "text" else key): value for key, value in check.items()}
    kind = options.pop("check")
    if kind not in CHECKS:
        raise ValueError(f"no check is named {kind!r}; known: {', '.join(CHECKS)}.")
    return bool(text.strip()) and CHECKS[kind](text, **options)


def all_followed(answer: str, item: Item) -> float:
    """1 if all rules of the field ``checks`` are kept."""
    return float(all(follows(answer, check) for check in item.fields["checks"]))


def share_followed(answer: str, item: Item) -> float:
    """Share of the rules that are kept."""
    kept = [follows(answer, check) for check in item.fields["checks"]]
    return sum(kept) / len(kept)
