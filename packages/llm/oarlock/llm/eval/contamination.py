"""Whether a model may have seen the questions: word n-grams that items share with a corpus."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oarlock.llm.eval.items import Item
from oarlock.llm.eval.result import TaskResult
from oarlock.llm.eval.statistics import Estimate, mean

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Of an item with the corpus.

    Args:
        share: of the item's n-grams that the corpus holds; NaN for an item too short to have one.
        example: one of those that it holds, as words; empty if none.
    """

    share: float
    example: str

    @property
    def dirty(self) -> bool:
        """Whether the corpus holds any."""
        return bool(self.example)


def words(text: str) -> list[str]:
    """Words in lower case without punctuation; each Chinese or Japanese character is one."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def overlaps(items: Sequence[Item], corpus: Iterable[str], *, n: int = 13) -> list[Overlap]:
    """Look for each item's n-grams in a corpus, which is read once, document by document.

    Few-shot examples are not looked at: only the fields of the item that are text, its choices and target.
    Memory grows with the items, not with the corpus. Short items, of fewer than n words, cannot be
    judged, and are said to be so.

    Args:
        items: of a task.
        corpus: documents.
        n: words; 13 as in GPT-3's analysis.

    Source: arXiv 2005.14165, appendix C.
    """
    if n < 2:
        raise ValueError(f"n must be 2 or more, got {n}.")
    grams = [_grams_of_item(item, n) for item in items]
    wanted = {gram for of_item in grams for gram in of_item}
    seen: set[bytes] = set()
    for document in corpus:
        seen |= _grams(words(document), n).keys() & wanted
    out = []
    for of_item in grams:
        hits = [gram for gram in of_item if gram in seen]
        out.append(
            Overlap(
                share=len(hits) / len(of_item) if of_item else float("nan"),
                example=of_item[hits[0]] if hits else "",
            )
        )
    return out


def _grams_of_item(item: Item, n: int) -> dict[bytes, str]:
    # each part by itself: no corpus holds their order in a task's file
    parts = [value for value in item.fields.values() if isinstance(value, str)]
    out: dict[bytes, str] = {}
    for part in (*parts, *item.choices, item.target):
        out |= _grams(words(part), n)
    return out


def _grams(tokens: list[str], n: int) -> dict[bytes, str]:
    out: dict[bytes, str] = {}
    for i in range(len(tokens) - n + 1):
        text = " ".join(tokens[i : i + n])
        out[hashlib.blake2b(text.encode(), digest_size=8).digest()] = text
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Contamination:
    """A task's score on the items that the corpus knows and on the others.

    Args:
        clean, dirty: None where there are no such items.
        unknown: number of items too short to judge, which count as neither.
        difference: dirty minus clean; None where one is missing.
        standard_error: of it, the two parts independent.
    """

    clean: Estimate | None
    dirty: Estimate | None
    unknown: int
    difference: float | None
    standard_error: float | None


def split(result: TaskResult, found: Sequence[Overlap]) -> Contamination:
    """Compare clean and dirty items.

    Raises:
        ValueError: there are not as many overlaps as items.
    """
    if len(found) != len(result.items):
        raise ValueError(f"found must be one an item, got {len(found)} for {len(result.items)}.")
    parts: dict[str, list[int]] = {"clean": [], "dirty": [], "unknown": []}
    for index, overlap in enumerate(found):
        kind = (
            "unknown" if overlap.share != overlap.share else "dirty" if overlap.dirty else "clean"
        )
        parts[kind].append(index)

    def estimate(indices: list[int]) -> Estimate | None:
        if not indices:
            return None
        chosen = [result.items[i] for i in indices]
        values, weights = zip(*(item.values[result.primary] for item in chosen))
        return mean(
            values,
            weights=None if set(weights) == {1.0} else weights,
            clusters=[item.cluster for item in chosen] if result.clustered else None,
        )

    clean, dirty = estimate(parts["clean"]), estimate(parts["dirty"])
    both = clean is not None and dirty is not None
    return Contamination(
        clean=clean,
        dirty=dirty,
        unknown=len(parts["unknown"]),
        difference=dirty.value - clean.value if both else None,  # type: ignore[union-attr]
        standard_error=(
            (clean.standard_error**2 + dirty.standard_error**2) ** 0.5  # type: ignore[union-attr]
            if both
            else None
        ),
    )
