"""How far a process is, in a file that its agent reads: no message, and no store, lies between them."""

import enum
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_RECORD = struct.Struct("<IIqq")


class Phase(enum.IntEnum):
    """Of a process.

    OUTSIDE: it loads, compiles or saves, and does not take part.
    WAITING: for its turn as a spare, or for the others of an epoch.
    TRAINING: takes steps.
    """

    OUTSIDE, WAITING, TRAINING = range(3)


@dataclass(frozen=True, slots=True)
class Progress:
    """
    Args:
        pid: of the process that trains; 0 where it has not begun.
        epoch: that it trains in, or did last.
        steps: that are taken.
    """

    phase: Phase = Phase.OUTSIDE
    pid: int = 0
    epoch: int = 0
    steps: int = 0

    @classmethod
    def read(cls, path: Path) -> Self:
        """What the process wrote last."""
        packed = path.read_bytes()
        if len(packed) < _RECORD.size:
            return cls()  # nothing yet
        phase, pid, epoch, steps = _RECORD.unpack(packed[: _RECORD.size])
        return cls(Phase(phase), pid, epoch, steps)


class ProgressFile:
    """The writing end. A record is one write of a few bytes, so whoever reads has all of it or the one before.

    Args:
        path: made where it is missing; None writes nowhere.
    """

    def __init__(self, path: Path | None) -> None:
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)

    def write(self, phase: Phase, epoch: int, steps: int) -> None:
        if self._file is not None:
            os.pwrite(self._file, _RECORD.pack(phase, os.getpid(), epoch, max(0, steps)), 0)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
