"""What a score depends on: written beside it, and compared before two scores are."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from oarlock.llm.eval import sandbox
from oarlock.llm.eval.items import Item
from oarlock.llm.eval.task import Task

LIBRARIES = ("oarlock-llm", "oarlock-native", "paddlepaddle", "numpy", "tokenizers", "jinja2")


def digest(value: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def of_task(
    task: Task, items: Sequence[Item], *, variant: str, limit: int | None
) -> dict[str, Any]:
    """A task as it was asked. ``items`` is the hash of all prompts, answers and clusters: equal only for the same questions."""
    content = [
        [item.id, item.prompt, item.target, item.choices, item.gold, item.cluster] for item in items
    ]
    few_shot = None if task.few_shot is None else task.few_shot.model_dump()
    return {
        "version": task.version,
        "definition": digest(task.model_dump()),
        "template": digest(task.template(variant)),
        "variant": variant,
        "few_shot": few_shot,
        "limit": limit,
        "n": len(items),
        "items": digest(content),
    }


def of_run(backend: Mapping[str, Any], tasks: Mapping[str, Any]) -> dict[str, Any]:
    """A run: backend, tasks, versions, machine; and an id over all of it."""
    where = sandbox.isolation()
    content = {
        "backend": dict(backend),
        "tasks": dict(tasks),
        "versions": versions(),
        "machine": {"system": platform.system(), "processor": platform.machine()},
        "sandbox": {"namespaces": where.namespaces, "landlock": where.landlock},
    }
    return content | {"id": digest(content)}


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that scores may depend on."""
    out = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            out[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name] = "not installed as a distribution"
    return out
