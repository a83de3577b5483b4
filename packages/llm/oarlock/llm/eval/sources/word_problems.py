"""Mathematics in words: GSM8K and the smaller sets of zero-shot-CoT."""

import json
import re
from typing import Any, Literal

from oarlock.llm.eval.data import Finder
from oarlock.llm.eval.sources import files

_STEP = re.compile(r"<<(.*?)>>")


def gsm8k(data: Finder, *, split: Literal["train", "test"]) -> list[dict[str, Any]]:
    """Fields: question, solution (without calculator marks), answer, steps (calculations of the solution).

    Source: arXiv 2110.14168.
    """
    rows = []
    for record in files.lines(data("llm/gsm8k") / f"{split}.jsonl.gz"):
        solution, answer = record["answer"].rsplit("#### ", 1)
        rows.append(
            {
                "question": record["question"],
                "solution": _STEP.sub("", solution).strip(),
                "answer": answer.strip().replace(",", ""),
                "steps": len(_STEP.findall(solution)),
            }
        )
    return rows


_SETS = {
    "svamp": ("dataset/SVAMP/SVAMP.json", "Equation", "Answer"),
    "multi_arith": ("dataset/MultiArith/MultiArith.json", "lEquations", "lSolutions"),
    "add_sub": ("dataset/AddSub/AddSub.json", "lEquations", "lSolutions"),
    "single_eq": ("dataset/SingleEq/questions.json", "lEquations", "lSolutions"),
}


def small(data: Finder, *, name: str) -> list[dict[str, Any]]:
    """Fields: question, answer, steps (operations in the equation)."""
    if name not in _SETS:
        raise ValueError(f"name must be one of {', '.join(_SETS)}, got {name!r}")
    member, equation_key, answer_key = _SETS[name]
    content = files.text(data("llm/zero_shot_cot_sets") / "datasets.zip", member)
    rows = []
    for record in json.loads(content):
        equation, answer = record[equation_key], record[answer_key]
        equation = equation[0] if isinstance(equation, list) else equation
        answer = float(answer[0] if isinstance(answer, list) else answer)
        question = record.get("sQuestion") or f"{record['Body'].rstrip(' .')}. {record['Question']}"
        rows.append(
            {
                "question": re.sub(r" ([.,?])", r"\1", question).strip(),
                "answer": f"{answer:.10g}",
                "steps": max(1, len(re.findall(r"(?<=[\w.)])\s*[-+*/]", equation))),
            }
        )
    return rows
