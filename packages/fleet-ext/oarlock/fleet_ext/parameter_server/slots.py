"""A server's copies of shards, and what it is for each: primary, backup, or about to become one."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from oarlock.fleet_ext.parameter_server.links import Applied
from oarlock.fleet_ext.parameter_server.placement import Place
from oarlock.fleet_ext.parameter_server.shard import Shard
from oarlock.fleet_ext.transport.work import Work


class Busy:
    """What threads work on, and since when."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    @contextmanager
    def working(self) -> Iterator[None]:
        thread = threading.get_ident()
        self._since[thread] = time.monotonic()
        try:
            yield
        finally:
            del self._since[thread]

    def longest(self) -> float:
        """Seconds."""
        begun = list(self._since.values())
        return time.monotonic() - min(begun) if begun else 0.0


class Slot:
    """A shard's place on a server; everything is used with `condition` held.

    Attributes:
        place: as the newest map says that this server knows.
        shard: this server's copy; None without one.
        backlog: changes since a copy was begun for who joins; None where nobody does.
        latest: the last change's way to the backup.
        building: a copy that comes, until it is whole.
    """

    def __init__(self, number: int, me: str) -> None:
        self.shard_number, self._me = number, me
        self.condition = threading.Condition()
        self.place: Place | None = None
        self.shard: Shard | None = None
        self.backlog: deque[Applied] | None = None
        self.latest: Work[None] | None = None
        self.building: Shard | None = None

    @property
    def leads(self) -> bool:
        return self.place is not None and self.place.primary == self._me and self.shard is not None

    @property
    def follows(self) -> bool:
        return self.place is not None and self.place.backup == self._me and self.shard is not None

    def move(self, place: Place) -> None:
        """Takes a place, if it is newer than what this knows.

        A copy of a shard that this server has no part in any more is dropped: another may have changes that it has not.
        """
        before = self.place
        if before is not None and before.version >= place.version:
            return
        self.place = place
        if before is None or before.epoch != place.epoch:
            self.latest = None
            self.condition.notify_all()
        if place.primary != self._me:
            self.backlog = None
        if self.shard is not None and self._me not in (*place.copies, place.joining):
            self.shard.clear()
            self.shard = None
