"""Ranks of a job as processes of this machine, and which of them failed first."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from oarlock.fleet_ext.children import Child, Lines, end, how, threads_environment
from oarlock.fleet_ext.failing import NOTES, TRACEBACKS, Note
from oarlock.fleet_ext.job import Place

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SETTLE_S = 1.0  #: in which ranks end that notice another's failure


class Ended(Exception):
    """This process was told to end.

    Attributes:
        signal: by which.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.signal = number


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The process that failed first.

    Args:
        rank: which.
        code: of its exit, negative for a signal.
        said: its last lines.
        note: what it left, None where it could not.
    """

    rank: int
    code: int
    said: Sequence[str]
    note: Note | None = None

    def __str__(self) -> str:
        if self.note is not None and self.note.follows:
            return (
                f"rank {self.rank} {how(self.code)}, as did what else ran here, for what happened elsewhere:"
                f" {self.note.words}"
            )
        if self.note is not None:
            return f"rank {self.rank} failed first: {self.note.words}"
        first = f"rank {self.rank} {how(self.code)}, before any other"
        if not self.said:
            return f"{first}, and had said nothing"
        return f"{first}; its last lines:\n" + "\n".join(f"    {line}" for line in self.said)


class Ranks:
    """Ranks as processes. Their lines come out whole, behind their rank.

    Args:
        command: program and arguments.
        places: of each process.
        threads: that each computes with; None for what the environment says.
        logs: folder for a file of each rank's lines, too.
        tracebacks: whether ranks show theirs that end because another failed.
        out: where lines go.
    """

    def __init__(
        self, command: Sequence[str], places: Sequence[Place], *, threads: int | None = None, logs: Path | None = None,
        tracebacks: bool = False, out: TextIO | None = None,
    ) -> None:  # fmt: skip
        self._places = list(places)
        self._told: int | None = None  #: a signal that came to this process
        self._notes = TemporaryDirectory(prefix="oarlock-")
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)
        lines = Lines(out)
        more = {
            "PYTHONUNBUFFERED": "1",
            **os.environ,
            **threads_environment(threads),
            NOTES: self._notes.name,
        }
        if tracebacks:
            more[TRACEBACKS] = "1"
        self._children = [
            Child(
                command, more | place.environment(), name=f"{place.rank:>{len(str(place.size - 1))}}", lines=lines,
                log=logs / f"rank-{place.rank}.log" if logs is not None else None, listens=place.local_rank == 0,
            )
            for place in self._places
        ]  # fmt: skip

    def wait(self) -> Failure | None:
        """Until all have ended; where one fails, the others are ended too.

        Raises:
            Ended: this process was told to end, and has ended them.
        """
        before = {one: signal.signal(one, self._tell) for one in _ENDS}
        try:
            while any(one.poll() is None for one in self._children) and not self._failed():
                if self._told is not None:
                    self.end(signal.Signals(self._told))
                    raise Ended(self._told)
                time.sleep(0.05)
            until = time.monotonic() + SETTLE_S
            while any(one.poll() is None for one in self._children) and time.monotonic() < until:
                time.sleep(0.02)
            failed = self._failed()
            self.end(signal.SIGTERM)
            return self._first(failed)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def end(self, first: signal.Signals) -> None:
        """Sends a signal, and ends for good who is still there after a while."""
        end(self._children, first)
        for one in self._children:
            one.settle()

    def _tell(self, number: int, frame: Any) -> None:
        self._told = number

    def _failed(self) -> list[int]:
        """Indices of those that ended, not well."""
        return [at for at, one in enumerate(self._children) if one.poll() not in (None, 0)]

    def _first(self, failed: Sequence[int]) -> Failure | None:
        """Who ended by itself: without a note (it was killed, or called `exit`), or with the earliest one."""
        notes = {at: Note.read(Path(self._notes.name), self._places[at].rank) for at in failed}
        self._notes.cleanup()
        if not failed:
            return None

        def order(at: int) -> tuple[bool, float]:
            note = notes[at]
            return (note.follows, note.time) if note is not None else (False, 0.0)

        first = min(failed, key=order)
        child = self._children[first]
        code = child.poll()
        assert code is not None
        return Failure(
            rank=self._places[first].rank, code=code, said=list(child.last), note=notes[first]
        )
