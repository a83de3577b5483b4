"""Where a prepared model lies, under a name that changes with everything that could change it."""

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import platformdirs

from oarlock.accept import data
from oarlock.accept.data.verify import file_sha256
from oarlock.accept.prepare.recipes import Recipe
from oarlock.accept.stamp import version

#: Distributions whose code decides what a recipe gives.
CODE = ("oarlock-accept", "oarlock-core-opt", "oarlock-llm", "oarlock-native", "paddlepaddle")

_checked: set[tuple[str, int, int]] = set()  # (path, size, mtime) of files found right


class ModelMissing(LookupError):
    """A model has not been prepared yet."""


class ModelCorrupt(ValueError):
    """A prepared model's files are not those that its card lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How far the preparation of a model is. `reason` says why it cannot start, if so."""

    name: str
    summary: str
    state: Literal["ready", "begun", "absent"]
    folder: Path
    step: int
    steps: int
    reason: str = ""


def default_root() -> Path:
    return platformdirs.user_cache_path("oarlock") / "models"


def data_sha256(recipe: Recipe) -> str:
    """The hash of the data set's files, as the registry lists them."""
    files = data.describe(recipe.data).files
    lines = "".join(f"{file.name} {file.sha256}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def address(recipe: Recipe) -> dict[str, Any]:
    """All that decides the weights: recipe, data and versions of the code."""
    return {
        "recipe": recipe.as_dict(),
        "data_sha256": data_sha256(recipe),
        "versions": {name: version(name) or "from source" for name in CODE},
    }


def key(recipe: Recipe) -> str:
    """The hash of `address` as canonical JSON."""
    text = json.dumps(address(recipe), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def folder(recipe: Recipe, root: Path) -> Path:
    return root / f"{recipe.name}-{key(recipe)[:12]}"


def card(where: Path) -> dict[str, Any] | None:
    """The card of a finished model; None before it is finished."""
    path = where / "card.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def progress(where: Path) -> int:
    """The step of the checkpoint of an unfinished model; 0 without one."""
    path = where / "progress.json"
    return json.loads(path.read_text(encoding="utf-8"))["step"] if path.exists() else 0


def write_json(path: Path, value: Any) -> None:
    part = path.with_name(f".{path.name}")
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def check(recipe: Recipe, where: Path) -> None:
    """Raises unless the model is finished and its files hash to what its card says."""
    found = card(where)
    remedy = f"oarlock-accept prepare {recipe.name}"
    if found is None:
        raise ModelMissing(
            f"model {recipe.name} is not prepared (looked for {where});"
            f" prepare it with `{remedy}`"
        )
    for name, expected in found["files"].items():
        path = where / name
        if not path.exists():
            raise ModelCorrupt(f"{path} is gone; make it anew with `{remedy} --fresh`")
        stat = path.stat()
        seen = (str(path), stat.st_size, stat.st_mtime_ns)
        if seen in _checked:
            continue
        actual = file_sha256(path)
        if actual != expected:
            raise ModelCorrupt(
                f"{path}: expected sha256 {expected}, found {actual};"
                f" make it anew with `{remedy} --fresh`"
            )
        _checked.add(seen)


def status(recipe: Recipe, root: Path) -> Status:
    where = folder(recipe, root)
    state: Literal["ready", "begun", "absent"] = "absent"
    step, reason = 0, ""
    if card(where) is not None:
        state, step = "ready", recipe.steps
    else:
        step = progress(where)
        state = "begun" if step else "absent"
        corpus = data.status(recipe.data)
        reason = "" if corpus.present else f"data set {corpus.name}: {corpus.reason}"
    return Status(
        name=recipe.name,
        summary=recipe.summary,
        state=state,
        folder=where,
        step=step,
        steps=recipe.steps,
        reason=reason,
    )


@contextmanager
def locked(where: Path) -> Iterator[None]:
    """Lets one process at a time prepare a model."""
    where.mkdir(parents=True, exist_ok=True)
    with (where / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"another process is preparing {where.name}") from error
        yield
