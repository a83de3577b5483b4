"""The page: what the template is given, and where it is written."""

import itertools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from oarlock.llm.eval.report import charts
from oarlock.llm.eval.result import EvalResult, ItemResult, TaskResult, compare_all
from oarlock.llm.eval.statistics import Comparison, Estimate, fit_2pl, holm
from oarlock.llm.eval.task import ABILITIES, TIERS

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("oarlock.llm.eval.report", "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two models on a task, with the p-value corrected for all comparisons of the page."""

    first: str
    second: str
    task: str
    comparison: Comparison
    corrected: float

    @property
    def verdict(self) -> str:
        """Who is better, if that is significant at 5 %."""
        if not self.corrected < 0.05:
            return "no difference shown"
        return f"{self.first if self.comparison.difference > 0 else self.second} is better"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """An item to read: what each model answered."""

    task: str
    item: ItemResult
    answers: tuple[tuple[str, str, float], ...]
    difficulty: float | None


def write(results: Sequence[EvalResult], path: str | os.PathLike, *, worst: int = 10) -> None:
    """Compare models on one page that needs nothing else: no script, no style, no picture from elsewhere.

    Args:
        results: of one or several models.
        path: of the HTML file.
        worst: items a task to read, hardest first.

    Raises:
        ValueError: there is no result, or two models have one name, or were not asked the same.
    """
    names = [result.model for result in results]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"results must be of one or more models of different names, got {names}.")
    tasks = sorted({name for result in results for name in result.tasks})
    text = _ENVIRONMENT.get_template("report.html").render(
        models=[(result, charts.colour(i)) for i, result in enumerate(results)],
        radar=_radar(results),
        tiers=TIERS,
        abilities=[a for a in ABILITIES if any(r.shares(a) for r in results)],
        matrices={result.model: result.matrix() for result in results},
        rows=[_row(results, name) for name in tasks],
        pairs=_pairs(results),
        worst=[item for name in tasks for item in _worst(results, name, worst)],
        refused=[(r.model, task, reason) for r in results for task, reason in r.refused.items()],
        truncated=[
            (r.model, task.name, task.truncated, len(task.items))
            for r in results
            for task in r.tasks.values()
            if task.truncated
        ],
        fingerprints=[
            (r.model, json.dumps(r.fingerprint, indent=1, ensure_ascii=False)) for r in results
        ],
        number=_number,
        p_value=lambda p: "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}",
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="replace")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _number(value: float, digits: int = 3) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _radar(results: Sequence[EvalResult]) -> str:
    scores = {r.model: {str(a): r.shares(a) for a in ABILITIES} for r in results}
    axes = [a for a in ABILITIES if any(of_model[a] for of_model in scores.values())]
    return charts.radar(scores, axes) if len(axes) >= 3 else ""


def _row(
    results: Sequence[EvalResult], name: str
) -> tuple[TaskResult, list[tuple[str, Estimate, str]]]:
    found = [
        (i, r.model, estimate)
        for i, r in enumerate(results)
        if name in r.tasks and (estimate := r.tasks[name].estimate()) is not None
    ]
    one = next(r.tasks[name] for r in results if name in r.tasks)
    known = [e for _, _, e in found]
    bounds = [x for e in known for x in (e.value, e.low, e.high) if not math.isnan(x)]
    low, high = (0.0, 1.0) if one.sign == 1 else (min(bounds), max(bounds))
    return one, [(model, e, charts.interval(e, low, high, i)) for i, model, e in found]


def _pairs(results: Sequence[EvalResult]) -> list[Pair]:
    found = []
    for first, second in itertools.combinations(results, 2):
        if set(first.tasks) & set(second.tasks):
            for task, comparison in compare_all(first, second).items():
                found.append((first.model, second.model, task, comparison))
    p_values = [1.0 if math.isnan(c.p_value) else c.p_value for *_, c in found]
    return [
        Pair(first=a, second=b, task=task, comparison=c, corrected=p)
        for (a, b, task, c), p in zip(found, holm(p_values))
    ]


def _worst(results: Sequence[EvalResult], name: str, count: int) -> list[Worst]:
    """Items on which the models score least together; of right and wrong, the most difficult by IRT."""
    have = [r for r in results if name in r.tasks]
    task = have[0].tasks[name]
    lists = [r.tasks[name].items for r in have]
    rows = [[item.values[task.primary][0] for item in items] for items in lists]
    difficulty: list[float | None] = [None] * len(task.items)
    if len(have) > 1 and {v for row in rows for v in row} <= {0.0, 1.0}:
        difficulty = list(fit_2pl(rows, discrimination=1.0).difficulty)
    means = [task.sign * sum(column) / len(column) for column in zip(*rows)]
    order = sorted(range(len(task.items)), key=lambda i: (means[i], i))[:count]
    return [
        Worst(
            task=name,
            item=task.items[i],
            answers=tuple(
                (r.model, items[i].output, row[i]) for r, items, row in zip(have, lists, rows)
            ),
            difficulty=difficulty[i],
        )
        for i in order
    ]
