"""Checkpoints read by any number of ranks, in any slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oarlock.fleet_ext.checkpoints.agreement import FILES_S, Mismatch, attempt
from oarlock.fleet_ext.checkpoints.checking import examine
from oarlock.fleet_ext.checkpoints.files import Request, file_of, read_tensors
from oarlock.fleet_ext.checkpoints.layout import Local, locals_of
from oarlock.fleet_ext.checkpoints.manifest import Manifest
from oarlock.fleet_ext.transport import Group

_NAMED = 5  #: problems that a message names


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of it, beside the tensors.

    Args:
        path: the checkpoint's folder.
        step: of training.
        metadata: of each rank that saved, in their order.
        missing: names that this rank wanted, and the checkpoint has not.
        unwanted: names that the checkpoint has, and no rank wanted.
        bytes: of tensors that this rank has read.
    """

    path: Path
    step: int
    metadata: Sequence[Any]
    missing: Sequence[str]
    unwanted: Sequence[str]
    bytes: int


def load(
    checkpoint: Path | str,
    wanted: Mapping[str, Any],
    group: Group | None = None,
    *,
    strict: bool = True,
    verify: bool = True,
) -> Loaded:
    """Reads tensors into memory that is there; on all ranks.

    Args:
        checkpoint: its folder, as `latest` and `Saving.wait` give it.
        wanted: by name, what is to be filled: NumPy arrays or Paddle tensors on the CPU, or `Sharded` for slices. Ranks may
            want what they like, whatever the number of ranks and the slices were when it was saved.
        group: of the ranks that load together. None for a process alone.
        strict: names that are wanted and not stored, or stored and wanted by no rank, are an error.
        verify: compare checksums first, for which each rank reads its share of the files.

    Raises:
        Mismatch: names, shapes or types are not those that are stored; nothing was read.
        CheckpointError: the checkpoint is damaged. After an error in reading, tensors may be filled in part.
        TransportError: a rank is missing.
    """
    path = Path(checkpoint)
    manifest = examine(path, group, contents=verify)
    targets: dict[str, Local] = {}

    def fit() -> list[str]:
        targets.update(_fitted(manifest, wanted, strict))
        return list(wanted)

    asked = {name for one in attempt(group, fit) for name in one}
    unwanted = tuple(name for name in manifest.tensors if name not in asked)
    if strict and unwanted:
        raise Mismatch(f"{path.name} has tensors that no rank wants: {_some(unwanted)} (strict=False leaves them out)")  # fmt: skip
    read = [0]

    def fill() -> None:
        for rank, requests in _requests(manifest, targets).items():
            read[0] += read_tensors(path / file_of(rank), requests)

    attempt(group, fill, timeout=FILES_S)
    missing = tuple(name for name in wanted if name not in targets)
    return Loaded(path, manifest.step, tuple(manifest.metadata), missing, unwanted, read[0])


def _fitted(manifest: Manifest, wanted: Mapping[str, Any], strict: bool) -> dict[str, Local]:
    """What is to be filled, without what is missing.

    Raises:
        Mismatch: it is not what is stored.
    """
    try:
        found = locals_of(wanted)
    except ValueError as error:
        raise Mismatch(str(error)) from error
    problems = []
    for name, one in found.items():
        stored = manifest.tensors.get(name)
        if stored is None:
            if strict:
                problems.append(f"tensor {name!r} is not stored")
        elif (stored.dtype, stored.shape) != (one.array.dtype.name, one.shape):
            problems.append(
                f"tensor {name!r} is stored as {stored.dtype} {stored.shape}, and wanted as"
                f" {one.array.dtype.name} {one.shape}"
            )
        elif not one.array.flags.writeable:
            problems.append(f"tensor {name!r} is wanted in an array that is not writeable")
    if problems:
        raise Mismatch(_some(problems, "; "))
    return {name: one for name, one in found.items() if name in manifest.tensors}


def _requests(manifest: Manifest, targets: Mapping[str, Local]) -> dict[int, list[Request]]:
    """What is read of each rank's file."""
    found: dict[int, list[Request]] = {}
    for name, one in targets.items():
        for rank, piece in manifest.tensors[name].pieces:
            part = piece.meet(one.box)
            if part is not None:
                target = part.view(one.array, one.box)
                found.setdefault(rank, []).append(Request(name, part.slices(piece), target))
    return found


def _some(told: Sequence[str], between: str = ", ") -> str:
    more = len(told) - _NAMED
    return between.join(told[:_NAMED]) + (f"{between}and {more} more" if more > 0 else "")
