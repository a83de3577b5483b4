"""Running text: to be predicted, or to be told from text that does not belong there."""

import re
from typing import Any, Literal

import numpy as np

from oarlock.llm.eval.data import Finder
from oarlock.llm.eval.sources import files

Distractor = Literal["other", "near", "edited"]


def documents(
    data: Finder,
    *,
    name: str,
    part: str | None = None,
    items: int,
    characters: int = 2000,
) -> list[dict[str, Any]]:
    """The first ``characters`` of documents spread evenly over a corpus.

    Fields: text, document (its number).
    """
    texts = _documents(data, name, part)
    chosen = [i * len(texts) // items for i in range(min(items, len(texts)))]
    return [{"text": texts[i][:characters].strip(), "document": i} for i in dict.fromkeys(chosen)]


def _documents(data: Finder, name: str, part: str | None) -> list[str]:
    folder = data(f"llm/{name}")
    if name == "wikitext2":
        return _articles(files.text(folder / f"{part}.txt.gz"))
    if name == "tinyshakespeare":
        text = files.text(folder / "input.txt")
        # scenes have no marks: blocks of some twenty speeches, at the border of one
        speeches = text.split("\n\n")
        return ["\n\n".join(speeches[i : i + 20]) for i in range(0, len(speeches), 20)]
    if name == "chinese_poetry":
        records = files.lines(folder / "poems.jsonl.xz")
        return [f"{r['t']}\n{r['a']}\n{r['p']}" for r in records if r["k"] == part and r["p"]]
    if name == "paddle_docs_zh_en":
        records = files.lines(folder / "docs.jsonl.xz")
        return [r["text"] for r in records if r["lang"] == part and len(r["text"]) > 500]
    raise ValueError(f"no corpus is named {name!r}")


def _articles(text: str) -> list[str]:
    """WikiText's articles, with its marks of separated tokens undone."""
    parts = re.split(r"(?m)^ = (?!=)(.*?)(?<!=) = *$", text)[1:]
    out = []
    for title, body in zip(parts[::2], parts[1::2]):
        if len(body) > 400:
            out.append(detokenize(f"{title.strip()}\n{body.strip()}"))
    return out


def detokenize(text: str) -> str:
    """WikiText as it would be written: no spaces before punctuation, numbers and hyphens whole."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([.,;:!?)\]%]|'s\b|n't\b|'(?:re|ve|ll|d|m)\b)", r"\1", text)
    text = re.sub(r"([(\[$£]) ", r"\1", text)
    text = re.sub(r'" (.*?) "', r'"\1"', text)
    return re.sub(r"[ \t]*\n[ \t]*", "\n", text).strip()


def next_sentence(
    data: Finder, *, items: int, distractor: Distractor, seed: int
) -> list[dict[str, Any]]:
    """Which of four sentences follows, in Wikipedia's English (WikiText-2's test part).

    Args:
        data: finds the data set.
        items: number of questions, at most one a paragraph.
        distractor: the wrong ones are of "other" articles, "near" (of the same article), or the right
            one "edited": two of its words swapped.
        seed: of the choice.

    Fields: context, options, gold, article.
    """
    rng = np.random.default_rng(seed)
    paragraphs = []
    for number, article in enumerate(_documents(data, "wikitext2", "test")):
        for line in article.split("\n"):
            sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z\"])", line)
            if len(sentences) >= 4 and not line.startswith("="):
                paragraphs.append((number, sentences))
    rows: list[dict[str, Any]] = []
    for index in rng.permutation(len(paragraphs)):
        number, sentences = paragraphs[index]
        right = sentences[2]
        if not 8 <= len(right.split()) <= 40:
            continue
        if distractor == "edited":
            wrong = _swapped(right.split(" "), rng, " ")
        else:
            same = distractor == "near"
            pool = [
                other[2]
                for place, (n, other) in enumerate(paragraphs)
                if (n == number) == same and place != index and 8 <= len(other[2].split()) <= 40
            ]
            wrong = [pool[i] for i in rng.permutation(len(pool))[:3]]
        if len(set(wrong) - {right}) < 3:
            continue
        rows.append(_choice(" ".join(sentences[:2]), right, wrong, rng) | {"article": number})
        if len(rows) == items:
            return rows
    raise ValueError(f"the corpus has {len(rows)} such paragraphs, {items} are needed")


def next_line(
    data: Finder, *, part: str, items: int, distractor: Distractor, seed: int
) -> list[dict[str, Any]]:
    """Which of four lines follows in a Chinese poem.

    Wrong lines are of as many characters; of "other" poets, "near": of the same poet, or the right one
    "edited": two of its characters swapped.

    Fields: context, options, gold, author.
    """
    rng = np.random.default_rng(seed)
    records = files.lines(data("llm/chinese_poetry") / "poems.jsonl.xz")
    poems = []
    for record in records:
        lines = re.findall(r"[^，。！？；、]+[，。！？；]", record["p"])
        if record["k"] == part and len(lines) >= 4 and "□" not in record["p"]:
            poems.append((record["a"], lines))
    by_author: dict[str, list[int]] = {}
    for index, (author, _) in enumerate(poems):
        by_author.setdefault(author, []).append(index)
    rows: list[dict[str, Any]] = []
    for index in rng.permutation(len(poems)):
        author, lines = poems[index]
        right = lines[3]
        if distractor == "edited":
            wrong = [text + right[-1] for text in _swapped(list(right[:-1]), rng, "")]
        else:
            near = by_author[author]
            pool = near if distractor == "near" else rng.integers(0, len(poems), 200).tolist()
            candidates = [
                line[:-1] + right[-1]
                for i in rng.permutation(pool)[:200]
                if i != index and (distractor == "near" or poems[i][0] != author)
                for line in [poems[i][1][3]]
                if len(line) == len(right)
            ]
            wrong = list(dict.fromkeys(candidates))[:3]
        if len(set(wrong) - {right}) < 3:
            continue
        rows.append(_choice("".join(lines[:3]), right, wrong, rng) | {"author": author})
        if len(rows) == items:
            return rows
    raise ValueError(f"the corpus has {len(rows)} such poems, {items} are needed")


def _swapped(parts: list[str], rng: np.random.Generator, joint: str) -> list[str]:
    """Up to three different texts in which two different parts have changed places."""
    pairs = [(i, j) for i in range(len(parts)) for j in range(i) if parts[i] != parts[j]]
    out: list[str] = []
    for k in rng.permutation(len(pairs)):
        i, j = pairs[k]
        changed = list(parts)
        changed[i], changed[j] = changed[j], changed[i]
        text = joint.join(changed)
        if text not in out:
            out.append(text)
        if len(out) == 3:
            break
    return out


def _choice(context: str, right: str, wrong: list[str], rng: np.random.Generator) -> dict[str, Any]:
    gold = int(rng.integers(4))
    options = [*wrong[:gold], right, *wrong[gold:]]
    return {"context": context, "options": options, "gold": gold}
