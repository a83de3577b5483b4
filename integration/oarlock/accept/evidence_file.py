"""Writes evidence files: merged by name, as a whole or not at all."""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oarlock.accept import results


def path(root: Path, tier: str, criterion: str) -> Path:
    """`<root>/<tier>/<criterion>.json`."""
    return root / tier / f"{criterion}.json"


def check_writable(root: Path, tier: str) -> None:
    """Raises ValueError if no evidence of the tier can be written below `root`; leaves nothing there."""
    folder = (root / tier).absolute()
    there = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".oarlock-"):
            pass
    except OSError as error:
        raise ValueError(
            f"cannot write evidence to {root}: {there}: {error.strerror};"
            " name another folder with --out"
        ) from error


def check(root: Path, tier: str, criterion: str) -> None:
    """Raises ResultsCorrupt if the file is there and cannot be read, before anything is run."""
    if path(root, tier, criterion).exists():
        results.read(path(root, tier, criterion))


def merge(root: Path, tier: str, criterion: str, records: Iterable[Mapping[str, Any]]) -> Path:
    """Puts records into the evidence file of a criterion, in place of those of the same name.

    Raises:
        ResultsCorrupt: the file is broken, or would be; it is left as it was.
    """
    target = path(root, tier, criterion)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent):
        kept: dict[str, Mapping[str, Any]] = {}
        if target.exists():
            results.read(target)
            old = json.loads(target.read_text(encoding="utf-8"))
            kept = {record["name"]: record for record in old["evidence"]}
        kept |= {record["name"]: record for record in records}
        whole = {"criterion": criterion, "tier": tier, "evidence": list(kept.values())}
        text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        part = target.parent / f".{os.getpid()}" / target.name  # named as the reader wants it
        part.parent.mkdir(exist_ok=True)
        try:
            part.write_text(text, encoding="utf-8")
            results.read(part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
            part.parent.rmdir()
    return target


def names(file: Path, experiment: str) -> list[str]:
    """The names of the evidence in a file that an experiment gave, in this run or earlier."""
    record = json.loads(file.read_text(encoding="utf-8"))
    return [one["name"] for one in record["evidence"] if one.get("experiment") == experiment]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lets one process at a time write into a folder."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
