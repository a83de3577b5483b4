"""Folders of checkpoints: which there are, which of them are good, and which may go."""

import logging
import re
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oarlock.fleet_ext.checkpoints.agreement import FILES_S, CheckpointError, attempt, place
from oarlock.fleet_ext.checkpoints.files import Sum, sum_of
from oarlock.fleet_ext.checkpoints.manifest import Manifest
from oarlock.fleet_ext.transport import Group

_log = logging.getLogger(__name__)

#: A step that is saved again, after training went back, gets a number behind its name: nothing is replaced.
_NAME = re.compile(r"step-(\d{6,})(?:\.(\d+))?")
_PART = re.compile(r"\.step-\d+\.[0-9a-f]+\.part")


@dataclass(frozen=True, slots=True)
class Found:
    """The newest good checkpoint.

    Args:
        path: of its folder.
        skipped: newer ones that are not good, and why.
    """

    path: Path
    step: int
    skipped: Sequence[tuple[Path, str]]


def listed(folder: Path) -> list[Path]:
    """All checkpoints in a folder, good or not, newest first; none where there is no folder."""
    if not folder.is_dir():
        return []
    matches = [(match, path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    matches.sort(key=lambda one: (int(one[0][1]), int(one[0][2] or 0)), reverse=True)
    return [path for _, path in matches]


def free_name(folder: Path, step: int) -> str:
    """Of the next checkpoint of a step."""
    name = f"step-{step:06d}"
    taken = [
        int(match[2] or 0)
        for path in listed(folder)
        if (match := _NAME.fullmatch(path.name)) and int(match[1]) == step
    ]
    return f"{name}.{max(taken) + 1}" if taken else name


def part_name(name: str) -> str:
    """Of a checkpoint that is being written, or removed."""
    return f".{name}.{uuid.uuid4().hex}.part"


def leftovers(folder: Path) -> list[Path]:
    """What was cut short."""
    return [path for path in folder.iterdir() if _PART.fullmatch(path.name)]


def examine(checkpoint: Path, group: Group | None = None, *, contents: bool = True) -> Manifest:
    """Whether a checkpoint is good, which is told to all ranks; each looks at its share of the files.

    Args:
        contents: compare checksums, for which files are read; else only that all are there, in their sizes.

    Raises:
        CheckpointError: it is not; the message says why.
        TransportError: a rank is missing.
    """
    rank, size = place(group)
    read: list[Manifest] = []

    def check() -> dict[str, str]:
        manifest = Manifest.read(checkpoint)
        read.append(manifest)
        for name in _shared(manifest, size)[rank]:
            check_file(checkpoint / name, manifest.files[name], contents)
        return {name: one.sha256 for name, one in manifest.files.items()}

    found = attempt(group, check, timeout=FILES_S)
    if any(one != found[0] for one in found):
        raise CheckpointError(f"{checkpoint} is not the same for all ranks: is the folder shared?")
    return read[0]


def latest(folder: Path | str, group: Group | None = None, *, verify: bool = True) -> Found | None:
    """The newest good checkpoint of a folder; None where there is none at all.

    Those that are torn or damaged are skipped, with a warning that says why. All ranks find the same one.

    Args:
        verify: compare checksums; else only that all files are there, in their sizes.

    Raises:
        CheckpointError: there are checkpoints, but no good one; the message says why not.
        TransportError: a rank is missing.
    """
    folder, skipped = Path(folder), []
    names = attempt(group, lambda: [path.name for path in listed(folder)])[0]
    for path in (folder / name for name in names):
        try:
            manifest = examine(path, group, contents=verify)
        except CheckpointError as error:
            skipped.append((path, str(error)))
            if place(group)[0] == 0:
                _log.warning("%s is skipped: %s", path, error)
        else:
            return Found(path, manifest.step, tuple(skipped))
    if skipped:
        raise CheckpointError(
            f"{folder} has no good checkpoint: "
            + "; ".join(f"{path.name}: {why}" for path, why in skipped)
        )
    return None


def prune(folder: Path | str, keep: int) -> list[Path]:
    """Removes checkpoints that are older than so many good ones; by one process.

    Good is here what has all its files in their sizes. As long as there are fewer good ones, nothing is removed.

    Returns:
        what was removed.

    Raises:
        OSError: one could not be removed.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}: the last good one always stays")
    good, removed = 0, []
    for path in listed(Path(folder)):
        if good >= keep:
            part = part_name(path.name.partition(".")[0])
            shutil.rmtree(path.rename(path.with_name(part)))  # it goes whole, whatever happens
            removed.append(path)
            continue
        try:
            examine(path, contents=False)
        except CheckpointError as error:
            _log.warning("%s does not count as kept: %s", path, error)
        else:
            good += 1
    return removed


def _shared(manifest: Manifest, size: int) -> list[list[str]]:
    """Files for each rank to look at: about the same bytes."""
    loads: list[tuple[int, list[str]]] = [(0, []) for _ in range(size)]
    for name in sorted(manifest.files, key=lambda one: (-manifest.files[one].bytes, one)):
        least = min(range(size), key=lambda rank: (loads[rank][0], rank))
        total, names = loads[least]
        loads[least] = (total + manifest.files[name].bytes, [*names, name])
    return [names for _, names in loads]


def check_file(path: Path, expected: Sum, contents: bool) -> None:
    """
    Raises:
        CheckpointError: it is not there, or not what it should be.
    """
    if not path.is_file():
        raise CheckpointError(f"{path.name} is missing")
    if (size := path.stat().st_size) != expected.bytes:
        raise CheckpointError(f"{path.name} has {size} bytes, not {expected.bytes}")
    if contents and (found := sum_of(path)) != expected:
        raise CheckpointError(
            f"{path.name} is damaged: its SHA-256 is {found.sha256[:16]}…, not {expected.sha256[:16]}…"
        )
