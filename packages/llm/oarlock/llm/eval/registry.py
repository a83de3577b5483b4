"""The tasks that come with the package, and those of a folder of yours."""

import difflib
import fnmatch
import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from oarlock.llm.eval import task as tasks_module
from oarlock.llm.eval.task import ABILITIES, TIERS, Ability, Task, Tier

FOLDER = Path(__file__).parent / "tasks"


def load_folder(folder: str | os.PathLike[str] = FOLDER) -> dict[str, Task]:
    """All tasks of a folder of YAML files, by name, sorted; read once.

    Raises:
        ValueError: there is no such folder, or a file is not a task.
    """
    return _load_folder(Path(folder).absolute())


@cache
def _load_folder(folder: Path) -> dict[str, Task]:
    if not folder.is_dir():
        raise ValueError(f"folder must exist, got {folder}.")
    loaded = (tasks_module.load(path) for path in sorted(folder.glob("*.yaml")))
    return {task.name: task for task in loaded}


def select(
    patterns: str | Iterable[str] = "*",
    *,
    ability: Ability | None = None,
    tier: Tier | None = None,
    language: str | None = None,
    folder: str | os.PathLike[str] = FOLDER,
) -> list[Task]:
    """Tasks whose names match a pattern such as "bbh_*", in the order of their names.

    Args:
        patterns: one or several.
        ability, tier, language: keep those only; a task of several tiers counts for each.
        folder: of the YAML files.

    Raises:
        ValueError: a pattern matches nothing, or nothing is left.
    """
    tasks = load_folder(folder)
    chosen: set[str] = set()
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matched = fnmatch.filter(tasks, pattern)
        if not matched:
            near = difflib.get_close_matches(pattern, tasks, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else f"there are {len(tasks)} tasks."
            raise ValueError(f"no task matches {pattern!r}: {hint}")
        chosen.update(matched)
    kept = [
        task
        for name, task in tasks.items()
        if name in chosen
        and (ability is None or task.ability == ability)
        and (tier is None or tier in task.tiers)
        and (language is None or task.language == language)
    ]
    if not kept:
        raise ValueError(f"no task is left of {len(chosen)} by {ability=}, {tier=}, {language=}.")
    return kept


def matrix(tasks: Sequence[Task]) -> dict[Ability, dict[Tier, list[str]]]:
    """Names of the tasks that may fill each cell of ability and tier."""
    return {
        ability: {
            tier: [task.name for task in tasks if task.ability == ability and tier in task.tiers]
            for tier in TIERS
        }
        for ability in ABILITIES
    }
