"""What an evaluation found, item by item."""

import dataclasses
import gzip
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oarlock.llm.eval.metrics.likelihood import EXPONENTIAL, LESS_IS_BETTER
from oarlock.llm.eval.statistics import Comparison, Estimate, compare, mean
from oarlock.llm.eval.task import ABILITIES, TIERS, Tier

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """One answer.

    Args:
        id, tier, cluster: of the item.
        prompt: what the model saw.
        target: what was right.
        output: what the model wrote, or which choice it took.
        values: (value, weight) by metric, or by "metric,filter".
        truncated: whether part of the prompt did not fit the model.
    """

    id: str
    tier: Tier
    cluster: str
    prompt: str
    target: str
    output: str
    values: dict[str, tuple[float, float]]
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """All answers of a task.

    Args:
        name, ability, language, primary, chance: of the task.
        clustered: whether items share sources.
        items: in the order of the task.
    """

    name: str
    ability: str
    language: str
    primary: str
    chance: float | None
    clustered: bool
    items: tuple[ItemResult, ...]

    @property
    def metrics(self) -> list[str]:
        """Names of all scores."""
        return list(self.items[0].values)

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return -1 if self.primary.partition(",")[0] in LESS_IS_BETTER else 1

    def estimate(self, metric: str | None = None, *, tier: Tier | None = None) -> Estimate | None:
        """A score with its error; None if no item is of that tier.

        Raises:
            ValueError: the task has no such metric.
        """
        metric = self.primary if metric is None else metric
        if metric not in self.metrics:
            raise ValueError(
                f"task {self.name} has no metric {metric!r}; it has: {', '.join(self.metrics)}."
            )
        items = [item for item in self.items if tier is None or item.tier == tier]
        if not items:
            return None
        values, weights = zip(*(item.values[metric] for item in items))
        found = mean(
            values,
            weights=None if set(weights) == {1.0} else weights,
            clusters=[item.cluster for item in items] if self.clustered else None,
        )
        if metric.partition(",")[0] not in EXPONENTIAL:
            return found
        value = _exp(found.value)
        return dataclasses.replace(
            found,
            value=value,
            standard_error=value * found.standard_error,
            low=_exp(found.low),
            high=_exp(found.high),
        )

    @property
    def truncated(self) -> int:
        """Number of items whose prompt did not fit."""
        return sum(item.truncated for item in self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """What a model scored.

    Args:
        model: its name.
        fingerprint: see `oarlock.llm.eval.fingerprint`.
        tasks: by name.
        refused: tasks that the backend could not run, and why.
        seconds: wall time of each task.
    """

    model: str
    fingerprint: dict[str, Any]
    tasks: dict[str, TaskResult]
    refused: dict[str, str]
    seconds: dict[str, float]

    def save(self, path: str | os.PathLike) -> None:
        """Write all of it as JSON, compressed if the name ends with ``.gz``; an interruption leaves no half file."""
        path = Path(path)
        text = json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, ensure_ascii=False)
        content = text.encode("utf-8", "surrogatepass")
        if path.suffix == ".gz":
            content = gzip.compress(content, mtime=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "EvalResult":
        """Read what ``save`` wrote.

        Raises:
            ValueError: it is something else.
        """
        path = Path(path)
        try:
            content = path.read_bytes()
            if path.suffix == ".gz":
                content = gzip.decompress(content)
            fields = json.loads(content)
            if fields.pop("format") != FORMAT:
                raise ValueError(f"format must be {FORMAT}")
            tasks = {}
            for name, task in fields.pop("tasks").items():
                items = tuple(
                    ItemResult(
                        **item | {"values": {k: (v, w) for k, (v, w) in item["values"].items()}}
                    )
                    for item in task.pop("items")
                )
                tasks[name] = TaskResult(**task, items=items)
            return cls(**fields, tasks=tasks)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            EOFError,
            gzip.BadGzipFile,
        ) as error:
            raise ValueError(f"{path} holds no result of an evaluation: {error!r}.") from error

    def shares(self, ability: str, tier: Tier | None = None) -> Estimate | None:
        """Mean over an ability's tasks of the share of what chance leaves, (score - chance) / (1 - chance).

        Tasks whose score is no share, such as bits per byte, are left out; None if none are left. Tasks
        count alike; their errors are taken for independent.
        """
        found = []
        for task in self.tasks.values():
            estimate = task.estimate(tier=tier)
            if task.ability == ability and task.sign == 1 and estimate is not None:
                chance = task.chance or 0.0
                found.append(
                    (
                        (estimate.value - chance) / (1 - chance),
                        estimate.standard_error / (1 - chance),
                        estimate.n,
                    )
                )
        if not found:
            return None
        value = sum(v for v, _, _ in found) / len(found)
        error = math.sqrt(sum(e * e for _, e, _ in found)) / len(found)
        n = sum(count for _, _, count in found)
        half = 1.959963984540054 * error
        return Estimate(
            value=value, standard_error=error, low=value - half, high=value + half, n=n, clusters=n
        )

    def matrix(self) -> dict[str, dict[str, Estimate | None]]:
        """``shares`` by ability and tier."""
        return {
            ability: {tier: self.shares(ability, tier) for tier in TIERS} for ability in ABILITIES
        }


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # words of a language without spaces


def compare_task(first: EvalResult, second: EvalResult, name: str) -> Comparison:
    """Paired difference of two models on a task, positive where the first is better.

    Raises:
        ValueError: one of them has not run it, or not the same items in the same words.
    """
    for result in (first, second):
        if name not in result.tasks:
            raise ValueError(f"{result.model} has not run task {name}.")
    asked = [r.fingerprint["tasks"][name] for r in (first, second)]
    for key in ("version", "items"):
        if asked[0][key] != asked[1][key]:
            raise ValueError(
                f"task {name} was not the same for {first.model} and {second.model}: its {key} "
                f"are {asked[0][key]} and {asked[1][key]}. Run both with the same limit and variant."
            )
    a, b = first.tasks[name], second.tasks[name]
    values = [[task.sign * item.values[task.primary][0] for item in task.items] for task in (a, b)]
    weights = [item.values[a.primary][1] for item in a.items]
    return compare(
        values[0],
        values[1],
        weights=None if set(weights) == {1.0} else weights,
        clusters=[item.cluster for item in a.items] if a.clustered else None,
    )


def compare_all(first: EvalResult, second: EvalResult) -> dict[str, Comparison]:
    """``compare_task`` for all tasks that both have run.

    Raises:
        ValueError: there are none, or one was not the same.
    """
    common = [name for name in first.tasks if name in second.tasks]
    if not common:
        raise ValueError(f"{first.model} and {second.model} have no task in common.")
    return {name: compare_task(first, second, name) for name in common}


def answers_matrix(results: Sequence[EvalResult], name: str) -> list[list[float]]:
    """Right (1) or wrong (0) of each model on each item of a task, for `statistics.fit_2pl`.

    Raises:
        ValueError: scores of the task are something else, or the models were not asked the same.
    """
    rows = []
    for result in results:
        compare_task(results[0], result, name)
        task = result.tasks[name]
        row = [item.values[task.primary][0] for item in task.items]
        if not set(row) <= {0.0, 1.0}:
            raise ValueError(f"task {name} is not scored by right and wrong.")
        rows.append(row)
    return rows
