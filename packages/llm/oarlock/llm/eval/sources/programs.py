"""Small programs to write: a description, and calls whose results are known.

Results come from the reference beside each description, on inputs drawn from the seed; the model's program
never sees them.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from oarlock.llm.eval.data import Finder

Arguments = list[Any]


def _word(rng: np.random.Generator, length: int) -> str:
    return "".join(rng.choice(list("abcdefg "), length)).strip() or "a"


def _numbers(rng: np.random.Generator, most: int = 12) -> list[int]:
    return rng.integers(-20, 21, int(rng.integers(0, most + 1))).tolist()


def _text(rng: np.random.Generator) -> Arguments:
    return [_word(rng, int(rng.integers(1, 16)))]


def _list(rng: np.random.Generator) -> Arguments:
    return [_numbers(rng)]


def _lists(rng: np.random.Generator) -> Arguments:
    return [sorted(_numbers(rng)), sorted(_numbers(rng))]


def _list_and_count(rng: np.random.Generator) -> Arguments:
    return [_numbers(rng), int(rng.integers(1, 6))]


def _two_texts(rng: np.random.Generator) -> Arguments:
    return [_word(rng, int(rng.integers(1, 9))), _word(rng, int(rng.integers(1, 9)))]


def _brackets(rng: np.random.Generator) -> Arguments:
    return ["".join(rng.choice(list("()[]{}"), 2 * int(rng.integers(0, 4))))]


def _grid(rng: np.random.Generator) -> Arguments:
    return [rng.integers(0, 10, (int(rng.integers(1, 5)), int(rng.integers(1, 5)))).tolist()]


def _coins(rng: np.random.Generator) -> Arguments:
    coins = sorted({int(c) for c in rng.integers(2, 12, 3)})
    return [coins, int(rng.integers(0, 40))]


def _edges(rng: np.random.Generator) -> Arguments:
    count = int(rng.integers(2, 8))
    return [count, rng.integers(0, count, (int(rng.integers(0, 9)), 2)).tolist()]


def _expression(rng: np.random.Generator) -> Arguments:
    parts = [str(rng.integers(0, 30))]
    for _ in range(int(rng.integers(0, 6))):
        parts += [str(rng.choice(list("+-*"))), str(rng.integers(0, 30))]
    return ["".join(parts)]


def _run_lengths(text: str) -> str:
    out, i = "", 0
    while i < len(text):
        j = i
        while j < len(text) and text[j] == text[i]:
            j += 1
        out, i = f"{out}{text[i]}{j - i}", j
    return out


def _balanced(text: str) -> bool:
    stack, pairs = [], {")": "(", "]": "[", "}": "{"}
    for c in text:
        if c not in pairs:
            stack.append(c)
        elif not stack or stack.pop() != pairs[c]:
            return False
    return not stack


def _edit_distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def _longest_increasing(values: list[int]) -> int:
    best: list[int] = []
    for i, x in enumerate(values):
        best.append(1 + max([best[j] for j in range(i) if values[j] < x], default=0))
    return max(best, default=0)


def _fewest_coins(coins: list[int], amount: int) -> int:
    best = [0] + [-1] * amount
    for total in range(1, amount + 1):
        known = [best[total - c] for c in coins if c <= total and best[total - c] >= 0]
        best[total] = 1 + min(known) if known else -1
    return best[amount]


def _components(count: int, edges: list[list[int]]) -> int:
    parent = list(range(count))

    def root(i: int) -> int:
        return i if parent[i] == i else root(parent[i])

    for a, b in edges:
        parent[root(a)] = root(b)
    return sum(root(i) == i for i in range(count))


def _evaluate(text: str) -> int:
    total, term, sign, number = 0, 1, 1, ""
    for c in text + "+":
        if c.isdigit():
            number += c
            continue
        term, number = term * int(number), ""
        if c != "*":
            total, term, sign = total + sign * term, 1, 1 if c == "+" else -1
    return total


def _rotate(values: list[int], count: int) -> list[int]:
    shift = count % len(values) if values else 0
    return values[-shift:] + values[:-shift] if shift else list(values)


Problem = tuple[str, str, str, Callable[..., Any], Callable[[np.random.Generator], Arguments]]

#: Tier -> (function, parameters, what it returns, reference, inputs).
PROBLEMS: dict[str, list[Problem]] = {
    "easy": [
        ("reverse", "text", "the string `text` reversed", lambda s: s[::-1], _text),
        ("total", "values", "the sum of the list `values`", sum, _list),
        (
            "largest",
            "values",
            "the largest number of the list `values`, or None if it is empty",
            lambda v: max(v, default=None),
            _list,
        ),
        (
            "vowels",
            "text",
            "how many of the characters of `text` are a, e, i, o or u",
            lambda s: sum(c in "aeiou" for c in s),
            _text,
        ),
        (
            "is_palindrome",
            "text",
            "True if the string `text` reads the same backwards, else False",
            lambda s: s == s[::-1],
            _text,
        ),
        (
            "evens",
            "values",
            "the even numbers of the list `values`, in their order",
            lambda v: [x for x in v if x % 2 == 0],
            _list,
        ),
        (
            "shout",
            "text",
            "`text` in upper case with an exclamation mark behind",
            lambda s: s.upper() + "!",
            _text,
        ),
        (
            "descending",
            "values",
            "the list `values` sorted from large to small",
            lambda v: sorted(v, reverse=True),
            _list,
        ),
        (
            "squares",
            "values",
            "a list of the squares of the numbers in `values`",
            lambda v: [x * x for x in v],
            _list,
        ),
        (
            "count_words",
            "text",
            "the number of words in `text`, which are separated by one or more spaces",
            lambda s: len(s.split()),
            _text,
        ),
    ],
    "medium": [
        (
            "run_lengths",
            "text",
            "the run-length code of `text`: each run of equal characters as the character and its length, so that 'aab' gives 'a2b1'",
            _run_lengths,
            _text,
        ),
        (
            "balanced",
            "text",
            "True if the brackets (), [] and {} in `text`, which holds nothing else, are balanced and properly nested, else False",
            _balanced,
            _brackets,
        ),
        (
            "unique",
            "values",
            "the different numbers of the list `values`, each once, in the order of their first occurrence",
            lambda v: list(dict.fromkeys(v)),
            _list,
        ),
        (
            "merge",
            "a, b",
            "one sorted list of all numbers in the sorted lists `a` and `b`",
            lambda a, b: sorted(a + b),
            _lists,
        ),
        (
            "rotate",
            "values, count",
            "the list `values` rotated to the right by `count` places",
            _rotate,
            _list_and_count,
        ),
        (
            "transpose",
            "grid",
            "the transpose of `grid`, a list of rows of equal length, as a list of lists",
            lambda g: [list(r) for r in zip(*g)],
            _grid,
        ),
        (
            "most_common",
            "text",
            "the most frequent character of `text`; among equals the one that is first in the alphabet's order (a space comes before letters)",
            lambda s: min(Counter(s).items(), key=lambda kv: (-kv[1], kv[0]))[0],
            _text,
        ),
        (
            "running_total",
            "values",
            "a list of the running totals of `values`",
            lambda v: np.cumsum(v, dtype=int).tolist(),
            _list,
        ),
        (
            "chunks",
            "values, size",
            "`values` cut into lists of `size` numbers, the last one possibly shorter",
            lambda v, n: [v[i : i + n] for i in range(0, len(v), n)],
            _list_and_count,
        ),
        (
            "is_anagram",
            "a, b",
            "True if the strings `a` and `b` hold the same characters equally often, else False",
            lambda a, b: sorted(a) == sorted(b),
            _two_texts,
        ),
    ],
    "hard": [
        (
            "edit_distance",
            "a, b",
            "the Levenshtein distance between the strings `a` and `b`",
            _edit_distance,
            _two_texts,
        ),
        (
            "longest_increasing",
            "values",
            "the length of the longest strictly increasing subsequence of the list `values`",
            _longest_increasing,
            _list,
        ),
        (
            "fewest_coins",
            "coins, amount",
            "the smallest number of coins that add up to `amount`, where each value in the list `coins` may be used any number of times, or -1 if there is no way",
            _fewest_coins,
            _coins,
        ),
        (
            "components",
            "count, edges",
            "the number of connected components of the undirected graph with nodes 0 to `count` - 1 and the list of pairs `edges`",
            _components,
            _edges,
        ),
        (
            "evaluate",
            "text",
            "the value of the arithmetic expression `text`, made of non-negative integers and the operators +, - and * (which binds tighter), without using eval",
            _evaluate,
            _expression,
        ),
        (
            "best_sum",
            "values",
            "the largest sum of a contiguous, possibly empty part of the list `values`",
            lambda v: max(sum(v[i:j]) for i in range(len(v) + 1) for j in range(i, len(v) + 1)),
            _list,
        ),
        (
            "spiral",
            "grid",
            "the numbers of `grid`, a list of rows of equal length, in clockwise spiral order from the top left",
            lambda g: _spiral([list(r) for r in g]),
            _grid,
        ),
        (
            "longest_common",
            "a, b",
            "the length of the longest common subsequence of the strings `a` and `b`",
            lambda a, b: _common(a, b),
            _two_texts,
        ),
    ],
}


def _spiral(grid: list[list[int]]) -> list[int]:
    out: list[int] = []
    while grid:
        out += grid.pop(0)
        grid = [list(row) for row in zip(*grid)][::-1]
    return out


def _common(a: str, b: str) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            grow = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = grow
    return table[-1][-1]


def make(data: Finder, *, tier: str, calls: int, seed: int) -> list[dict[str, Any]]:
    """All problems of a tier.

    Fields: entry, signature, description, calls (lists of arguments), expected (their results).
    """
    if tier not in PROBLEMS or calls < 1:
        raise ValueError(
            f"tier must be one of {', '.join(PROBLEMS)} and calls 1 or more, got {tier!r}, {calls}"
        )
    rows = []
    for number, (entry, parameters, description, reference, inputs) in enumerate(PROBLEMS[tier]):
        rng = np.random.default_rng([seed, number])
        arguments = [inputs(rng) for _ in range(calls)]
        rows.append(
            {
                "entry": entry,
                "signature": f"def {entry}({parameters}):",
                "description": description,
                "calls": arguments,
                "expected": [reference(*one) for one in arguments],
            }
        )
    return rows
