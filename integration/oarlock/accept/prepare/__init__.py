"""Models that several experiments share: trained once, kept in the user's cache.

>>> from oarlock.accept import prepare
>>> prepare.prepare(["llama-shakespeare-bytes"])
>>> model, card = prepare.load("llama-shakespeare-bytes")

A finished model's folder is one of `oarlock.llm.models.save`, with `card.json` (recipe, losses,
versions, hashes) and, for BPE, `tokenizer.json`. Its name ends with a hash of all that decides the weights.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from oarlock.accept.prepare import place
from oarlock.accept.prepare.place import ModelCorrupt, ModelMissing, Status
from oarlock.accept.prepare.recipes import RECIPES, Recipe, find

__all__ = [
    "ModelCorrupt",
    "ModelMissing",
    "Recipe",
    "Status",
    "card",
    "load",
    "names",
    "path",
    "prepare",
    "recipe",
    "status",
]


def names() -> list[str]:
    """The names of all recipes."""
    return [one.name for one in RECIPES]


def recipe(name: str) -> Recipe:
    """The recipe of a name; ValueError proposes near names."""
    return find(name)


def status(name: str, *, root: Path | None = None) -> Status:
    """How far the preparation of a model is. Nothing is trained."""
    return place.status(find(name), root or place.default_root())


def path(name: str, *, root: Path | None = None) -> Path:
    """The folder of a prepared model, its files checked against its card.

    Raises:
        ValueError: no such recipe. ModelMissing: not prepared; names the command.
        ModelCorrupt: its files were changed.
    """
    one = find(name)
    where = place.folder(one, root or place.default_root())
    place.check(one, where)
    return where


def card(name: str, *, root: Path | None = None) -> dict[str, Any]:
    """The card of a prepared model: recipe, losses, parameters, versions, hashes."""
    return json.loads((path(name, root=root) / "card.json").read_text(encoding="utf-8"))


def load(name: str, *, root: Path | None = None) -> tuple[Any, dict[str, Any]]:
    """A prepared model with its weights, ready for evaluation, and its card."""
    from oarlock.llm import models

    where = path(name, root=root)
    return models.load(where).eval(), card(name, root=root)


def prepare(
    names: Sequence[str] | None = None,
    *,
    progress: bool = True,
    fresh: bool = False,
    root: Path | None = None,
) -> list[Status]:
    """Trains the models that are not ready; goes on with those that were interrupted.

    Args:
        names: recipes; None for all.
        progress: show a bar with loss, tokens/s and remaining time on stderr.
        fresh: throw away what there is, and begin anew.
        root: folder of the models; None for the user's cache.
    Raises:
        ValueError: no such recipe. DataMissing, DataCorrupt: the recipe's text.
        Interrupted: after Ctrl-C; the next call goes on.
    """
    chosen = list(RECIPES) if names is None else [find(name) for name in names]
    return prepare_recipes(chosen, progress=progress, fresh=fresh, root=root)


def prepare_recipes(
    recipes: Iterable[Recipe], *, progress: bool, fresh: bool, root: Path | None
) -> list[Status]:
    """`prepare` for recipes that need not be registered."""
    root = root or place.default_root()
    done = []
    display = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  {task.fields[speed]:,.0f} tokens/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not progress,
    )
    with display:
        for one in recipes:
            where = place.folder(one, root)
            with place.locked(where):
                if fresh:
                    for file in where.iterdir():
                        if file.name != ".lock":
                            file.unlink() if file.is_file() else shutil.rmtree(file)
                if place.card(where) is None:
                    _train(one, where, display)
                place.check(one, where)
            done.append(place.status(one, root))
    return done


def _train(one: Recipe, where: Path, display: Progress) -> None:
    from oarlock.accept.prepare.train import Step, train

    begun = place.progress(where)
    task = display.add_task(
        one.name, total=one.steps, completed=begun, loss=float("nan"), speed=0.0
    )
    speed = 0.0

    def on_step(step: Step) -> None:
        nonlocal speed
        speed = 0.9 * speed + 0.1 * step.tokens_per_s if speed else step.tokens_per_s
        display.update(task, completed=step.step, loss=step.loss, speed=speed)

    train(one, where, on_step)
