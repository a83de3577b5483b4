"""From a task and its source to items: questions as the model will see them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
import jinja2.sandbox
import numpy as np

from oarlock.llm.eval import sources
from oarlock.llm.eval.data import Finder
from oarlock.llm.eval.task import FewShot, Task, Tier, TierRule

_ENVIRONMENT = jinja2.sandbox.ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question.

    Args:
        id: the task's name and the number in its source.
        fields: as the source gave them.
        tier: difficulty.
        cluster: items of the same one share a source.
        prompt: what the model continues; few-shot examples included.
        target: the right continuation, or the reference of a generated answer.
        choices: possible continuations, delimiter included.
        gold: index of the right one.
    """

    id: str
    fields: dict[str, Any]
    tier: Tier
    cluster: str
    prompt: str
    target: str = ""
    choices: tuple[str, ...] = ()
    gold: int = -1


@cache
def _template(source: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(source)


def render(template: str, fields: dict[str, Any]) -> str:
    """Fill a sandboxed template; an unknown field is an error.

    Raises:
        ValueError: the template is wrong, or names what the item has not.
    """
    try:
        return _template(template).render(fields)
    except jinja2.TemplateError as error:
        raise ValueError(f"template {template!r} fails: {error}") from error


def build(
    task: Task, *, data: Finder, limit: int | None = None, variant: str = "default"
) -> list[Item]:
    """The items of a task.

    Args:
        task: which.
        data: finds folders of data sets.
        limit: at most so many, spread evenly over the source; None for all.
        variant: of the prompt.

    Raises:
        ValueError: the task's file does not fit its source; names task and item.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be 1 or more, got {limit}.")
    template = task.template(variant)
    rows = sources.read(task.source.reader, data, task.source.options)
    if not rows:
        raise ValueError(f"task {task.name}: its source has no items.")
    few_shot = task.few_shot
    pool = rows
    if few_shot is not None and few_shot.options is not None:
        pool = sources.read(task.source.reader, data, few_shot.options)
    numbers = range(len(rows))
    if limit is not None and limit < len(rows):
        numbers = [i * len(rows) // limit for i in range(limit)]  # type: ignore[assignment]
    items = []
    for number in numbers:
        try:
            examples = _examples(task, few_shot, pool, number, template) if few_shot else ""
            items.append(_item(task, rows[number], number, examples, template))
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"task {task.name}, item {number}: {error!r}") from error
    return items


def _item(task: Task, fields: dict[str, Any], number: int, examples: str, template: str) -> Item:
    tier = task.tier.of(fields) if isinstance(task.tier, TierRule) else task.tier
    cluster = str(fields[task.cluster]) if task.cluster else str(number)
    choices: tuple[str, ...] = ()
    gold = -1
    if task.choices is not None and task.gold is not None:
        choices = tuple(task.delimiter + str(choice) for choice in fields[task.choices])
        gold = int(fields[task.gold])
        if not 0 <= gold < len(choices) or len(choices) < 2:
            raise ValueError(f"right answer {gold} of {len(choices)} choices")
    return Item(
        id=f"{task.name}:{number}",
        fields=fields,
        tier=tier,
        cluster=cluster,
        prompt=examples + render(template, fields),
        target=_target(task, fields),
        choices=choices,
        gold=gold,
    )


def _target(task: Task, fields: dict[str, Any]) -> str:
    if task.target:
        return render(task.target, fields)
    if task.choices is not None and task.gold is not None:
        return str(fields[task.choices][int(fields[task.gold])])
    return ""


def _examples(
    task: Task, few_shot: FewShot, pool: Sequence[dict[str, Any]], number: int, template: str
) -> str:
    own = few_shot.options is None  # of the task itself: the item must not be its own example
    needed = few_shot.count + own
    if len(pool) < needed:
        raise ValueError(f"{needed} examples are needed, the source has {len(pool)}")
    if few_shot.pick == "first":
        order: Sequence[int] = range(needed)
    else:
        order = np.random.default_rng(number).permutation(len(pool))[:needed].tolist()
    chosen = [i for i in order if not (own and i == number)][: few_shot.count]
    answers = [
        render(few_shot.target, pool[i]) if few_shot.target else _target(task, pool[i])
        for i in chosen
    ]
    return "".join(
        render(template, pool[i]) + task.delimiter + answer + few_shot.separator
        for i, answer in zip(chosen, answers)
    )
