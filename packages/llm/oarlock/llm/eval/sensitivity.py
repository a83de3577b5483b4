"""How much a score depends on the words of the prompt."""

from dataclasses import dataclass
from typing import Any

from oarlock.llm.eval.backends import Backend
from oarlock.llm.eval.evaluate import evaluate
from oarlock.llm.eval.result import TaskResult
from oarlock.llm.eval.statistics import Comparison, Estimate, compare
from oarlock.llm.eval.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """A task's score under each of its prompts.

    Args:
        scores: by variant, "default" first.
        against_default: paired difference of each other variant.
        spread: largest minus smallest score.
        flipped: share of items whose score is not the same under all variants.
    """

    scores: dict[str, Estimate]
    against_default: dict[str, Comparison]
    spread: float
    flipped: float


def sensitivity(backend: Backend, task: Task, **options: Any) -> Sensitivity:
    """Run a task under all of its prompts.

    Args:
        backend: runs the model.
        task: with variants.
        options: of `evaluate`, but ``variant``.

    Raises:
        ValueError: the task has no variants.
    """
    if not task.variants:
        raise ValueError(f"task {task.name} has no variants of its prompt.")
    found: dict[str, TaskResult] = {}
    for variant in ("default", *task.variants):
        found[variant] = evaluate(backend, task, variant=variant, **options).tasks[task.name]
    values = {
        name: [item.values[result.primary][0] for item in result.items]
        for name, result in found.items()
    }
    scores = {name: result.estimate() for name, result in found.items()}
    means = [estimate.value for estimate in scores.values() if estimate is not None]
    clusters = [item.cluster for item in found["default"].items] if task.cluster else None
    return Sensitivity(
        scores={name: estimate for name, estimate in scores.items() if estimate is not None},
        against_default={
            name: compare(values[name], values["default"], clusters=clusters)
            for name in task.variants
        },
        spread=max(means) - min(means),
        flipped=sum(len(set(column)) > 1 for column in zip(*values.values()))
        / len(values["default"]),
    )
