"""Answers compared with a reference text."""

import math
import re
import string
import unicodedata
from collections import Counter

from oarlock.llm.eval.items import Item

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_CJK = re.compile(r"[\u4e00-\u9fff]")


def normalized(text: str) -> str:
    """Lower case, without articles, punctuation and surplus space. Source: SQuAD's evaluation, arXiv 1606.05250."""
    text = unicodedata.normalize("NFKC", text).lower()
    text = "".join(
        c
        for c in text
        if c not in string.punctuation and not unicodedata.category(c).startswith("P")
    )
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(answer: str, item: Item, *, normalize: bool = False) -> float:
    """1 if the answer is the target, both without outer space, or both normalised."""
    if normalize:
        return float(normalized(answer) == normalized(item.target))
    return float(answer.strip() == item.target.strip())


def parse_number(text: str) -> float | None:
    """The number that ``text`` is, apart from signs of currency, per cent and thousands; None if none."""
    text = text.strip().strip("$€£¥%").rstrip(".").strip()
    match = _NUMBER.fullmatch(text)
    return float(match[0].replace(",", "")) if match else None


def number_match(answer: str, item: Item, *, relative: float = 1e-6) -> float:
    """1 if answer and target are the same number.

    Raises:
        ValueError: the target is no number.
    """
    target = parse_number(item.target)
    if target is None:
        raise ValueError(f"item {item.id}: target {item.target!r} must be a number.")
    found = parse_number(answer)
    if found is None:
        return 0.0
    return float(math.isclose(found, target, rel_tol=relative, abs_tol=relative))


_LATEX = (
    (re.compile(r"\\(?:left|right|displaystyle|,|!|;|:| )|\\\$|\$|\s"), ""),
    (re.compile(r"\\[dt]frac"), r"\\frac"),
    (re.compile(r"\\frac(\d)(\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\(?:text|mbox|mathrm)\{.*?\}|\^\{?\\circ\}?|\\%|%"), ""),
    (re.compile(r"\.$"), ""),
)


def latex_match(answer: str, item: Item) -> float:
    """1 if answer and target are the same formula but for space, units, kinds of fraction and brackets' sizes."""

    def plain(text: str) -> str:
        for pattern, replacement in _LATEX:
            text = pattern.sub(replacement, text)
        return text

    return float(plain(answer) == plain(item.target))


def words(text: str) -> list[str]:
    """Words of the normalised text; each Chinese character is one."""
    return _CJK.sub(lambda match: f" {match[0]} ", normalized(text)).split()


def f1(answer: str, item: Item) -> float:
    """Harmonic mean of precision and recall of words, 2 common / (words of both). Source: arXiv 1606.05250."""
    found, wanted = Counter(words(answer)), Counter(words(item.target))
    common = (found & wanted).total()
    if not found or not wanted:
        return float(found == wanted)
    return 2 * common / (found.total() + wanted.total())
