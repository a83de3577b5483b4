"""AGIEval: questions of entrance examinations, Chinese and English."""

import re
from typing import Any

from oarlock.llm.eval.data import Finder
from oarlock.llm.eval.sources import files

_LETTER = re.compile(r"^\s*[(（]?([A-E])[)）.．、]?\s*")


def agieval(data: Finder, *, name: str, level: int | None = None) -> list[dict[str, Any]]:
    """Questions with one right answer; those that want several letters are left out.

    Fields: passage, question, options (without letters), letters, gold; without options: answer. MATH also has
    level (1 to 5), by which ``level`` selects.

    Source: arXiv 2304.06364.
    """
    records = files.lines(data("llm/agieval") / "agieval_v1.zip", f"data/v1/{name}.jsonl")
    rows = []
    for record in records:
        row = {
            "passage": (record.get("passage") or "").strip(),
            "question": record["question"].strip(),
        }
        other = record.get("other") or {}
        if "level" in other:
            row["level"] = int(other["level"])
        if level is not None and row.get("level") != level:
            continue
        if record["options"]:
            label = record["label"]
            label = label[0] if isinstance(label, list) and len(label) == 1 else label
            if not isinstance(label, str) or len(label) != 1:
                continue
            row["options"] = [_LETTER.sub("", option) for option in record["options"]]
            row["letters"] = "ABCDE"[: len(row["options"])]
            row["gold"] = "ABCDE".index(label)
        else:
            row["answer"] = str(record["answer"]).strip()
        rows.append(row)
    return rows
