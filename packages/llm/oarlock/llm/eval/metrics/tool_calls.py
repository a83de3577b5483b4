"""Calls of functions compared with accepted ones, after parsing: spelling and order of arguments do not count."""

import ast
import json
import re
from collections.abc import Sequence
from typing import Any

from oarlock.llm.eval.items import Item

Call = tuple[str, dict[str, Any]]


def tool_calls(answer: str, item: Item) -> float:
    """1 if the calls in the answer are those of the item, in any order; where it has none, if there is none.

    A call is right if its function is, every argument has one of the accepted values, and none is missing that
    must be there. Texts are compared without case, spaces and punctuation; "" among the accepted values
    allows an argument to be left out.

    Source: Berkeley Function-Calling Leaderboard, AST evaluation.
    """
    fields = item.fields
    found = parse(answer, fields["names"])
    accepted = fields["calls"]
    if not accepted:
        return float(not found)
    if len(found) != len(accepted):
        return 0.0
    fits = [[_fits(call, one) for one in accepted] for call in found]
    return float(_matching(fits))


def _matching(fits: list[list[bool]]) -> bool:
    """Whether each row can be given a column of its own (augmenting paths)."""
    owner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in seen:
                seen.add(column)
                if column not in owner or place(owner[column], seen):
                    owner[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(fits)))


def parse(answer: str, names: Sequence[str]) -> list[Call]:
    """Calls in an answer: JSON objects with "name" and "arguments", or Python calls of known functions.

    What cannot be read is no call.
    """
    text = re.sub(r"```(?:json|python|tool_code)?", "", answer)
    calls = _from_json(text)
    return calls if calls else _from_python(text, names)


def _from_json(text: str) -> list[Call]:
    decoder, at, calls = json.JSONDecoder(), 0, []
    while (begin := min((i for i in (text.find(c, at) for c in "{[") if i >= 0), default=-1)) >= 0:
        try:
            value, at = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            at = begin + 1
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict) and isinstance(one.get("name"), str):
                arguments = one.get("arguments", one.get("parameters", {}))
                if isinstance(arguments, dict):
                    calls.append((one["name"], arguments))
    return calls


def _from_python(text: str, names: Sequence[str]) -> list[Call]:
    calls: list[Call] = []
    for source in (text.strip(), *text.strip().splitlines()):
        try:
            tree = ast.parse(source.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        nodes = tree.elts if isinstance(tree, (ast.List, ast.Tuple)) else [tree]
        for node in nodes:
            if not isinstance(node, ast.Call) or node.args:
                continue
            name = ast.unparse(node.func)
            if name not in names:
                continue
            try:
                arguments = {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
            except ValueError:
                continue
            calls.append((name, arguments))
        if calls and source == text.strip():
            break
    return calls


def _fits(call: Call, accepted: dict[str, Any]) -> bool:
    [(name, values)] = accepted.items()
    found_name, arguments = call
    # servers replace dots in names, which their protocol does not allow
    if found_name.replace(".", "_") != name.replace(".", "_"):
        return False
    if set(arguments) - set(values):
        return False
    for argument, allowed in values.items():
        if argument not in arguments:
            if "" not in allowed:
                return False
        elif not any(_same(arguments[argument], value) for value in allowed):
            return False
    return True


def _same(found: Any, accepted: Any) -> bool:
    if isinstance(accepted, str) and isinstance(found, str):
        return _plain(found) == _plain(accepted)
    if isinstance(accepted, bool) or isinstance(found, bool):
        return found is accepted
    if isinstance(accepted, (int, float)) and isinstance(found, (int, float)):
        return found == accepted
    if isinstance(accepted, list) and isinstance(found, (list, tuple)):
        return len(found) == len(accepted) and all(map(_same, found, accepted))
    if isinstance(accepted, dict) and isinstance(found, dict):
        # values of a nested object are lists of accepted ones, as at the top
        nested = {k: v if isinstance(v, list) else [v] for k, v in accepted.items()}
        return not set(found) - set(nested) and all(
            any(_same(found[key], value) for value in allowed) if key in found else "" in allowed
            for key, allowed in nested.items()
        )
    return type(found) is type(accepted) and found == accepted


def _plain(text: str) -> str:
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')
