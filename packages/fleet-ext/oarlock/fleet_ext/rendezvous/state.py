"""The keys of a store in memory: what a change is, and what it does.

A change is made in two steps. The functions that begin with `to_` look, and give the record of what is to be done;
`apply` does it. Between them the record is written to the journal, and a journal's records applied in order give
the same state again. Nothing here waits, locks or writes.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from oarlock.fleet_ext.rendezvous.store import LONGEST_CALL_S, Change

Record = dict[str, Any]

HISTORY = 16384  #: changes that are kept for watchers
HISTORY_BYTES = 32 << 20
#: Answers are remembered until their slot is used again, or for so many seconds.
_REMEMBERED_S = 2 * LONGEST_CALL_S


@dataclass(slots=True)
class Entry:
    value: bytes
    revision: int
    lease: int | None


@dataclass(slots=True)
class Held:
    """A lease; `until` on the monotonic clock."""

    seconds: float
    until: float
    keys: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Answer:
    """The last one to a slot: a client's connection, whose requests come one after the other."""

    number: int
    value: Any
    time: float


class State:
    """Keys, leases, the latest changes and the latest answers.

    A new state begins at a revision made of the clock, so that whoever watched a store whose keys are lost is told.
    """

    def __init__(self) -> None:
        self.revision = time.time_ns() // 1000
        self.forgotten = self.revision  #: changes up to this revision are not in `history`
        self.entries: dict[str, Entry] = {}
        self.leases: dict[int, Held] = {}
        self.history: deque[Change] = deque()
        self.answers: OrderedDict[str, Answer] = OrderedDict()
        self.bytes = 0  #: of keys and values
        self._history_bytes = 0

    def value(self, key: str) -> bytes | None:
        entry = self.entries.get(key)
        return None if entry is None else entry.value

    def under(self, prefix: str) -> list[str]:
        return sorted(key for key in self.entries if key.startswith(prefix))

    def changes(self, prefix: str, since: int) -> list[Change]:
        found = []
        for change in reversed(self.history):
            if change.revision <= since:
                break
            if change.key.startswith(prefix):
                found.append(change)
        return found[::-1]

    def to_change(
        self, changes: list[tuple[str, bytes | None]], lease: int | None = None
    ) -> Record:
        return {
            "revision": self.revision + 1,
            "changes": [list(change) for change in changes],
            "lease": lease,
        }

    def to_grant(self, seconds: float) -> Record:
        # Numbers of a store that lost its keys must not come again.
        return {"revision": self.revision + 1, "grant": [self.revision + 1, seconds]}

    def to_revoke(self, lease: int) -> Record:
        keys = sorted(self.leases[lease].keys)
        return {**self.to_change([(key, None) for key in keys]), "revoke": lease}

    def expired(self, now: float) -> list[int]:
        return [lease for lease, held in self.leases.items() if held.until <= now]

    def apply(self, record: Record) -> None:
        if "past" in record:
            self._remember_change(Change(*record["past"]))
            return
        if "forgotten" in record:
            self.forgotten = record["forgotten"]
        if "grant" in record:
            lease, seconds = record["grant"]
            self.leases[lease] = Held(seconds, time.monotonic() + seconds)
        # What is written anew to a journal has the revision it had; it is no new change.
        for key, value in record.get("changes", ()):
            self._set(key, value, record["revision"], record["lease"])
            if not record.get("old"):
                self._remember_change(Change(key, value, record["revision"]))
        if not record.get("old"):
            self.revision = record.get("revision", self.revision)
        if "revoke" in record:
            del self.leases[record["revoke"]]
        if "slot" in record:
            self.answer(record["slot"], record["number"], record["answer"])

    def answer(self, slot: str, number: int, value: Any) -> None:
        """Remembers what was answered."""
        now = time.monotonic()
        self.answers[slot] = Answer(number, value, now)
        self.answers.move_to_end(slot)
        while next(iter(self.answers.values())).time < now - _REMEMBERED_S:
            self.answers.popitem(last=False)

    def records(self) -> Iterator[Record]:
        """Everything, as records that give it again."""
        yield {"revision": self.revision, "forgotten": self.forgotten}
        for lease, held in self.leases.items():
            yield {"grant": [lease, held.seconds]}
        for key, entry in self.entries.items():
            yield {"old": True, "changes": [[key, entry.value]], "lease": entry.lease,
                   "revision": entry.revision}  # fmt: skip
        for change in self.history:
            yield {"past": [change.key, change.value, change.revision]}
        for slot, answer in self.answers.items():
            yield {"slot": slot, "number": answer.number, "answer": answer.value}

    def _set(self, key: str, value: bytes | None, revision: int, lease: int | None) -> None:
        before = self.entries.pop(key, None)
        if before is not None:
            self.bytes -= len(key) + len(before.value)
            if before.lease is not None:
                self.leases[before.lease].keys.discard(key)
        if value is None:
            return
        self.entries[key] = Entry(value, revision, lease)
        self.bytes += len(key) + len(value)
        if lease is not None:
            self.leases[lease].keys.add(key)

    def _remember_change(self, change: Change) -> None:
        self.history.append(change)
        self._history_bytes += len(change.key) + len(change.value or b"")
        while len(self.history) > HISTORY or self._history_bytes > HISTORY_BYTES:
            oldest = self.history.popleft()
            self._history_bytes -= len(oldest.key) + len(oldest.value or b"")
            # Changes of one revision are forgotten together.
            self.forgotten = oldest.revision
            while self.history and self.history[0].revision == oldest.revision:
                oldest = self.history.popleft()
                self._history_bytes -= len(oldest.key) + len(oldest.value or b"")
