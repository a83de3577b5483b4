"""Files and folders that appear when they are complete."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(target: Path, *, force: bool) -> Iterator[Path]:
    """A path beside ``target`` to write to, renamed at the end; whatever goes wrong, it is removed.

    Args:
        target: a file, or a folder, that is to appear.
        force: replace what is there.

    Raises:
        ValueError: it is there already, or there is no folder to put it in, or a folder that is there holds
            more than a model.
    """
    check(target, force=force)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    _remove(partial)
    try:
        yield partial
        if target.is_dir():
            old = target.with_name(f".{target.name}.{os.getpid()}.old")
            os.replace(target, old)
            os.replace(partial, target)
            shutil.rmtree(old)
        else:
            os.replace(partial, target)
    finally:
        _remove(partial)


def check(target: Path, *, force: bool) -> None:
    """Refuse a target that may not be written; see ``whole``."""
    if not target.parent.is_dir():
        raise ValueError(f"target must lie in a folder that is there, but {target.parent} is not.")
    if not (target.exists() or target.is_symlink()):
        return
    if not force:
        raise ValueError(
            f"target {target} is there already: choose another, or replace it with force=True."
        )
    if target.is_symlink() or not (target.is_file() or target.is_dir()):
        raise ValueError(f"target must be a plain file or folder to be replaced, got {target}.")
    if target.is_dir() and (
        not (target / "config.json").is_file() or any(not one.is_file() for one in target.iterdir())
    ):
        raise ValueError(
            f"target {target} is a folder that holds something other than a model: it is not replaced."
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
