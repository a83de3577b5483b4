"""Checkpoints that are written while training goes on."""

import logging
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oarlock.fleet_ext.checkpoints.agreement import FILES_S, Mismatch, attempt, place, told
from oarlock.fleet_ext.checkpoints.checking import (
    check_file,
    examine,
    free_name,
    leftovers,
    part_name,
    prune,
)
from oarlock.fleet_ext.checkpoints.files import (
    Sum, file_of, sync_folder, write_bytes, write_tensors,
)  # fmt: skip
from oarlock.fleet_ext.checkpoints.layout import Stored, locals_of, plan
from oarlock.fleet_ext.checkpoints.manifest import NAME, Manifest
from oarlock.fleet_ext.checkpoints.staging import Staging
from oarlock.fleet_ext.transport import Group, Work, objects

_log = logging.getLogger(__name__)

_busy: "weakref.WeakSet[Group]" = weakref.WeakSet()  # groups that a thread uses now
_lock = threading.Lock()


class Saving(Work[Path]):
    """A checkpoint that is being written; `wait` gives its folder.

    Attributes:
        step: of it.
        staging_s: seconds in which its tensors were copied, and nothing else was done.
        staged: bytes that were copied.
        bytes: that this rank writes of tensors; 0 until ranks have agreed who writes what.
        written: how many of them are.
    """

    __slots__ = ("bytes", "staged", "staging_s", "step", "written")

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step, self.staging_s = step, 0.0
        self.staged = self.bytes = self.written = 0

    def wait(self, timeout: float | None = None) -> Path:
        """The checkpoint's folder.

        Raises:
            CheckpointError: it could not be saved, on this or any other rank, which the message names; rank 0 has removed
                what there was of it. Mismatch where ranks have given what does not fit together.
            TransportError: a rank is missing.
            TimeoutError: it is not over after `timeout` seconds.
        """
        return super().wait(timeout)


def save(
    state: Mapping[str, Any],
    folder: Path | str,
    step: int,
    group: Group | None = None,
    *,
    metadata: Any = None,
    wait: bool = False,
    timeout: float = FILES_S,
) -> Saving:
    """Copies tensors, and writes them as a checkpoint in the background; on all ranks.

    Args:
        state: tensors by name: NumPy arrays or Paddle tensors on the CPU that all ranks have alike (each writes its share),
            or `Sharded`.
        folder: of all checkpoints, that all ranks share; made where it is missing. Only one job uses
            it at a time.
        group: of its own, as `group.subgroup(range(group.size), "checkpoints")` is: until the handle is over, nothing else
            may use it. None for a process alone.
        metadata: of this rank, in plain values (`transport.objects`): scalars of the optimizer, states of generators, the
            position in the data.
        wait: until it is on the disk.
        timeout: seconds until the slowest rank has come, and has written its file.

    Returns:
        the handle. What is wrong on one rank, of its arguments too, is told by its `wait` on all of them.

    Raises:
        ValueError: of `step`; or the group's last checkpoint is not over yet.
    """
    return begin(Staging(), state, Path(folder), step, group, metadata=metadata, wait=wait, timeout=timeout)  # fmt: skip


def begin(
    staging: Staging,
    state: Mapping[str, Any],
    folder: Path,
    step: int,
    group: Group | None,
    *,
    metadata: Any,
    wait: bool,
    timeout: float,
    keep: int | None = None,
) -> Saving:
    """`save`, with memory of an earlier one; and removes old checkpoints where `keep` is given."""
    if step < 0:
        raise ValueError(f"step must be at least 0, not {step}")
    if group is not None:
        with _lock:
            if group in _busy:
                raise ValueError(
                    f"group {group.name!r} still saves a checkpoint: wait for it, or use Checkpoints, which does"
                )
            _busy.add(group)
    saving = Saving(step)
    job = _Job(saving, staging, folder, group, timeout, keep)
    start = time.perf_counter()
    try:
        tensors = locals_of(state)
        job.description = {"step": step, "tensors": {name: one.describe() for name, one in tensors.items()},
                           "metadata": objects.loads(objects.dumps(metadata))}  # fmt: skip
        saving.staged = staging.take(tensors, job.rank, job.size)
    except Exception as error:  # the other ranks must know of it
        job.error = error
    saving.staging_s = time.perf_counter() - start
    # No daemon: a program that ends waits for its last checkpoint.
    threading.Thread(target=job.run, name=f"checkpoint {step}").start()
    if wait:
        saving.wait()
    return saving


@dataclass(slots=True)
class _Job:
    """What is done in the background."""

    saving: Saving
    staging: Staging
    folder: Path
    group: Group | None
    timeout: float
    keep: int | None
    description: dict[str, Any] | None = None
    error: Exception | None = None

    @property
    def rank(self) -> int:
        return place(self.group)[0]

    @property
    def size(self) -> int:
        return place(self.group)[1]

    def run(self) -> None:
        try:
            path = self._write()
        except Exception as error:
            _log.error("step %d is not saved: %s", self.saving.step, told(error))
            self._over()
            self.saving.fail(error)
        else:
            self._over()
            self.saving.finish(path)

    def _over(self) -> None:
        if self.group is not None:
            with _lock:
                _busy.discard(self.group)

    def _write(self) -> Path:
        temporary = self.folder / part_name(f"step-{self.saving.step:06d}")  # rank 0's
        try:
            everyone = self._attempt(lambda: self._opened(temporary))
            if len(steps := {one["step"] for one in everyone}) > 1:
                raise Mismatch(f"ranks save different steps: {sorted(steps)}")
            shared = self.folder / everyone[0]["temporary"]
            planned = plan([one["tensors"] for one in everyone])
            sums = self._attempt(lambda: self._wrote(shared, planned))
            metadata = [one["metadata"] for one in everyone]
            names = self._attempt(lambda: self._committed(shared, planned, sums, metadata))
        except Exception:
            # Ranks write nothing any more, unless one is lost: what those leave goes after the next good checkpoint.
            if self.rank == 0:
                shutil.rmtree(temporary, ignore_errors=True)
            raise
        path = self.folder / names[0]
        if (keep := self.keep) is not None:
            examine(path, self.group)  # what is on the disk, before anything older goes
            self._attempt(lambda: len(prune(self.folder, keep)) if self.rank == 0 else 0)
        return path

    def _attempt(self, function: Callable[[], Any]) -> list[Any]:
        return attempt(self.group, function, timeout=self.timeout)

    def _opened(self, temporary: Path) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        assert self.description is not None
        if self.rank == 0:
            temporary.mkdir(parents=True)
        return {**self.description, "temporary": temporary.name}

    def _wrote(self, folder: Path, planned: Mapping[str, Stored]) -> list[Any]:
        parts = self.staging.parts(planned, self.rank)
        self.saving.bytes = sum(one.nbytes for one in parts.values())

        def wrote(count: int) -> None:
            self.saving.written += count

        found = write_tensors(folder / file_of(self.rank), parts, wrote)
        return [found.bytes, found.sha256]

    def _committed(
        self, temporary: Path, planned: dict[str, Stored], sums: list[Any], metadata: list[Any]
    ) -> str | None:
        """Makes it visible, once all files are there; by rank 0."""
        if self.rank != 0:
            return None
        files = {file_of(rank): Sum(*one) for rank, one in enumerate(sums)}
        for name, one in files.items():
            check_file(temporary / name, one, contents=False)  # where the folder is not shared
        manifest = Manifest(self.saving.step, self.size, planned, files, metadata)
        write_bytes(temporary / NAME, manifest.dumps())
        sync_folder(temporary)
        name = free_name(self.folder, self.saving.step)
        temporary.rename(self.folder / name)
        sync_folder(self.folder)
        for path in leftovers(self.folder):
            shutil.rmtree(path, ignore_errors=True)  # somebody may still write there
        return name
