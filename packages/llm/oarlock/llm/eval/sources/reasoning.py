"""Sets of reasoning: BIG-Bench Hard and those of zero-shot-CoT."""

import json
import re
from typing import Any

import numpy as np

from oarlock.llm.eval.data import Finder
from oarlock.llm.eval.sources import files

_OPTION = re.compile(r"^\(([A-Z])\) (.*)$", re.MULTILINE)
_DASH = re.compile(r"^- (.*?)\s*$", re.MULTILINE)


def _member(data: Finder, member: str) -> str:
    return files.text(data("llm/zero_shot_cot_sets") / "datasets.zip", member)


def bbh(data: Finder, *, name: str, answers: list[str] | None = None) -> list[dict[str, Any]]:
    """A task of BIG-Bench Hard; items whose answer is none of their options are left out.

    Args:
        data: finds the data set.
        name: of the task.
        answers: all possible ones, where the questions do not list them; without, and without
            options, the answer is free text.

    Fields: question (without options), target; with options: options, letters, gold. Also words, the number of them
    in the question.

    Source: arXiv 2210.09261.
    """
    content = files.text(data("llm/bbh") / "bbh.zip", f"bbh/{name}.json")
    rows = []
    for record in json.loads(content)["examples"]:
        question, _, listed = record["input"].partition("\nOptions:")
        target = record["target"].strip()
        row: dict[str, Any] = {
            "question": question.strip(),
            "target": target,
            "words": len(question.split()),
        }
        lettered = _OPTION.findall(listed)
        if lettered:
            options = [text.strip() for _, text in lettered]
            names = [f"({letter})" for letter, _ in lettered]
        else:
            options = names = _DASH.findall(listed) or answers or []
        if options:
            if target not in names or len(options) < 2:  # four of all; one option has no mark
                continue
            row |= {
                "options": options,
                "letters": "".join(chr(65 + i) for i in range(len(options))),
                "gold": names.index(target),
            }
        rows.append(row)
    return rows


def commonsense_qa(data: Finder) -> list[dict[str, Any]]:
    """The development set. Fields: question, options, letters, gold, concept.

    Source: arXiv 1811.00937.
    """
    rows = []
    for line in _member(data, "dataset/CommonsenseQA/dev_rand_split.jsonl").splitlines():
        record = json.loads(line)
        question = record["question"]
        rows.append(
            {
                "question": question["stem"],
                "options": [choice["text"] for choice in question["choices"]],
                "letters": "ABCDE",
                "gold": "ABCDE".index(record["answerKey"]),
                "concept": question["question_concept"],
            }
        )
    return rows


def strategy_qa(data: Finder) -> list[dict[str, Any]]:
    """Questions whose steps are implicit. Fields: question, options, gold.

    Source: arXiv 2101.02235.
    """
    records = json.loads(_member(data, "dataset/StrategyQA/task.json"))["examples"]
    return [
        {
            "question": record["input"].strip(),
            "options": ["yes", "no"],
            "gold": 0 if record["target_scores"]["Yes"] else 1,
        }
        for record in records
    ]


def coin_flip(data: Finder) -> list[dict[str, Any]]:
    """Is the coin still heads up? Fields: question, options, gold, flips."""
    records = json.loads(_member(data, "dataset/coin_flip/coin_flip.json"))["examples"]
    return [
        {
            "question": record["question"],
            "options": ["yes", "no"],
            "gold": ["yes", "no"].index(record["answer"]),
            "flips": len(re.findall(r"\b(?:flips|does not flip)\b", record["question"])),
        }
        for record in records
    ]


NAMES = (
    "Ada Alan Barbara Bjarne Claude Donald Edsger Emmy Frances Grace Guido Hedy Ivan James John Karen Ken Leslie "
    "Lynn Margaret Niklaus Radia Richard Robin Sophie Stephen Tim Tony Vint Whitfield"
).split()


def last_letters(data: Finder, *, words: int, items: int, seed: int) -> list[dict[str, Any]]:
    """Last letters of so many names, joined. Fields: names, answer.

    Source of the task: arXiv 2201.11903.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(items):
        names = [NAMES[i] for i in rng.choice(len(NAMES), words, replace=False)]
        rows.append({"names": " ".join(names), "answer": "".join(name[-1] for name in names)})
    return rows
