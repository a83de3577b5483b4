"""Tool calls: questions, functions and accepted calls of the Berkeley Function-Calling Leaderboard v4."""

import json
from typing import Any

from oarlock.llm.eval.data import Finder
from oarlock.llm.eval.sources import files


def read(data: Finder, *, category: str) -> list[dict[str, Any]]:
    """One turn of one category; "irrelevance" has no call that is right.

    Fields: question (the last user's message), system, functions (JSON text), names,
    calls (accepted ones: name, then a list of values for each argument).

    Source: github.com/ShishirPatil/gorilla, berkeley-function-call-leaderboard.
    """
    path = data("llm/bfcl_v4") / "bfcl_v4.zip"
    name = f"BFCL_v4_{category}.json"
    accepted: dict[str, Any] = {}
    if "irrelevance" not in category:
        records = files.lines(path, f"possible_answer/{name}")
        accepted = {record["id"]: record["ground_truth"] for record in records}
    rows = []
    for record in files.lines(path, name):
        messages = record["question"][0]
        users = [message["content"] for message in messages if message["role"] == "user"]
        systems = [message["content"] for message in messages if message["role"] == "system"]
        rows.append(
            {
                "question": users[-1].strip(),
                "system": "\n".join(systems),
                "functions": json.dumps(record["function"], ensure_ascii=False),
                "names": [function["name"] for function in record["function"]],
                "calls": accepted.get(record["id"], []),
            }
        )
    return rows
