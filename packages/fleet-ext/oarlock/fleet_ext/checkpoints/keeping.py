"""The checkpoints of a job."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from oarlock.fleet_ext.checkpoints.agreement import FILES_S
from oarlock.fleet_ext.checkpoints.checking import Found, latest
from oarlock.fleet_ext.checkpoints.loading import Loaded, load
from oarlock.fleet_ext.checkpoints.saving import Saving, begin
from oarlock.fleet_ext.checkpoints.staging import Staging
from oarlock.fleet_ext.transport import Group


class Checkpoints:
    """Saves and restores a job's state in a folder; with messages and memory of its own, beside training.

    Args:
        folder: that all ranks share; made where it is missing. Only one job uses it at a time.
        group: all ranks, which make a part of it for this at once; None for a process alone.
        keep: so many good checkpoints stay, and older ones go, after the new one was read back; None for all.
        timeout: seconds until the slowest rank has come, and has written its file.

    Raises:
        ValueError: of an argument.
        TransportError: a rank is missing.
    """

    def __init__(
        self,
        folder: Path | str,
        group: Group | None = None,
        *,
        keep: int | None = None,
        timeout: float = FILES_S,
    ) -> None:
        if keep is not None and keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}: the last good one always stays")
        self.folder, self._keep, self._timeout = Path(folder), keep, timeout
        self._group: Group | None = None
        if group is not None:
            number = group.broadcast_object(uuid.uuid4().hex).wait()
            self._group = group.subgroup(range(group.size), f"checkpoints {number}")
        self._staging = Staging()
        self._saving: Saving | None = None

    def save(
        self, state: Mapping[str, Any], step: int, *, metadata: Any = None, wait: bool = False
    ) -> Saving:
        """Copies tensors, and writes them in the background; see `save`. Waits for the last one to be over first.

        Raises:
            ValueError: of `step`.
        """
        self._settle()
        self._saving = begin(
            self._staging, state, self.folder, step, self._group, metadata=metadata, wait=wait,
            timeout=self._timeout, keep=self._keep,
        )  # fmt: skip
        return self._saving

    def latest(self, *, verify: bool = True) -> Found | None:
        """The newest good checkpoint, the same on all ranks; see `latest`."""
        self._settle()
        return latest(self.folder, self._group, verify=verify)

    def restore(self, wanted: Mapping[str, Any], *, strict: bool = True) -> Loaded | None:
        """Fills tensors from the newest good checkpoint, see `load`; None where there is none at all.

        Raises:
            CheckpointError: there are checkpoints, but no good one. Mismatch where what is wanted is not what is stored.
            TransportError: a rank is missing.
        """
        found = self.latest()
        if found is None:
            return None
        return load(found.path, wanted, self._group, strict=strict, verify=False)

    def close(self) -> None:
        """Waits for the last checkpoint."""
        self._settle()
        if self._group is not None:
            self._group.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _settle(self) -> None:
        """Waits until nothing is written. What went wrong is told by the handle, and in the log."""
        if self._saving is not None:
            self._saving.over_within(None)
