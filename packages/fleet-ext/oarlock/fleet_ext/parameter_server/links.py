"""The way of changes from the primary of a shard to its backup: in order, several in one message, acknowledged."""

import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from oarlock.fleet_ext.parameter_server import messages
from oarlock.fleet_ext.parameter_server.errors import TablesError
from oarlock.fleet_ext.parameter_server.messages import Message
from oarlock.fleet_ext.parameter_server.operations import Operation
from oarlock.fleet_ext.rendezvous import frames
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.work import Work

_CONNECT_S = 2.0
ACKNOWLEDGE_S = 10.0  #: after which a backup that has its lease is not waited for
_TOGETHER_BYTES = 8 << 20

_log = logging.getLogger(__name__)


class LinkLost(TablesError):
    """A backup does not answer, or refuses a change."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A change that the primary has applied, for a backup to apply.

    Args:
        shard, epoch: of the shard.
        index: how many changes the shard had with it.
    """

    shard: int
    epoch: int
    index: int
    operation: Operation
    done: Work[None] = field(default_factory=Work)

    @property
    def bytes(self) -> int:
        return sum(one.nbytes for one in self.operation.arrays)


def packed(me: str, changes: Sequence[Applied]) -> Message:
    """A message of changes.

    Args:
        me: the server that leads, of which the backup wants to know when its connection ends; "" for none.
    """
    parts = [[one.shard, one.epoch, one.index, *one.operation.pack()] for one in changes]
    arrays: list[np.ndarray] = [array for one in changes for array in one.operation.arrays]
    return Message({"op": "replicate", "from": me, "parts": parts}, arrays)


class Link:
    """To one backup.

    Args:
        me: this server's name.
        name, address: of the other server.
        lost: called once, from this link's thread, with the server's name and why, when it is over and was not closed.
    """

    def __init__(
        self, me: str, name: str, address: tuple[str, int], job: str, token: str, tls: wire.Tls | None,
        lost: Callable[[str, Exception], None],
    ) -> None:  # fmt: skip
        self._me = me
        self.name, self._address = name, address
        self._job, self._token, self._tls, self._lost = job, token, tls, lost
        self._change = threading.Condition()
        self._waiting: deque[Applied] = deque()
        self._sent: list[Applied] = []
        self._connection: socket.socket | None = None
        self.over = False
        threading.Thread(target=self._send_all, name=f"link to {name}", daemon=True).start()

    def submit(self, change: Applied) -> None:
        """Sends a change after the earlier ones; its `done` is over when the backup has applied it."""
        with self._change:
            if not self.over:
                self._waiting.append(change)
                self._change.notify()
                return
        change.done.fail(LinkLost(f"the link to server {self.name} is over"))

    def close(self, why: str) -> None:
        """Ends it; what was not acknowledged fails."""
        self._end(LinkLost(f"server {self.name}: {why}"))

    def _send_all(self) -> None:
        try:
            connection = messages.greeted(
                self._address, self._job, self._token, self._tls, _CONNECT_S
            )
            with self._change:
                self._connection = connection
                if self.over:
                    frames.end(connection)
            with connection:
                while self._take():
                    answer = messages.ask(connection, packed(self._me, self._sent), ACKNOWLEDGE_S)
                    self._acknowledge(answer)
        except Exception as error:  # whatever it is, who waits must hear of it
            if self._end(LinkLost(f"server {self.name}: {error}")):
                self._lost(self.name, error)

    def _take(self) -> bool:
        with self._change:
            while not self._waiting and not self.over:
                self._change.wait()
            size = 0
            self._sent = []
            while self._waiting and size < _TOGETHER_BYTES and not self.over:
                self._sent.append(self._waiting.popleft())
                size += self._sent[-1].bytes
            return not self.over

    def _acknowledge(self, answer: Message) -> None:
        results = answer.names.get("results")
        if not isinstance(results, list) or len(results) != len(self._sent):
            raise LinkLost("the answer is none")
        for one, why in zip(self._sent, results, strict=True):
            if why:
                one.done.fail(LinkLost(f"server {self.name} refuses shard {one.shard}: {why}"))
            else:
                one.done.finish(None)

    def _end(self, why: LinkLost) -> bool:
        with self._change:
            if self.over:
                return False
            self.over = True
            unfinished = [*self._sent, *self._waiting]
            self._waiting.clear()
            self._change.notify()
            if self._connection is not None:
                frames.end(self._connection)
        for one in unfinished:
            one.done.fail(why)
        return True


class Links:
    """A server's links, made when they are needed."""

    def __init__(
        self, me: str, job: str, token: str, tls: wire.Tls | None, lost: Callable[[str, Exception], None],
    ) -> None:  # fmt: skip
        self._me = me
        self._job, self._token, self._tls, self._lost = job, token, tls, lost
        self._lock = threading.Lock()
        self._links: dict[str, Link] = {}
        self._addresses: dict[str, tuple[str, int]] = {}
        self._distrusted: dict[str, float] = {}

    def update(self, addresses: dict[str, tuple[str, int]]) -> None:
        """Who is there; links to others are ended."""
        with self._lock:
            self._addresses = dict(addresses)
            gone = [self._links.pop(name) for name in list(self._links) if name not in addresses]
        for one in gone:
            one.close("its lease is over")

    def address(self, name: str) -> tuple[str, int] | None:
        with self._lock:
            return self._addresses.get(name)

    def submit(self, name: str, change: Applied) -> None:
        with self._lock:
            link, address = self._links.get(name), self._addresses.get(name)
            if (link is None or link.over) and address is not None:
                link = Link(
                    self._me, name, address, self._job, self._token, self._tls, self._report
                )
                self._links[name] = link
        if link is None:
            change.done.fail(LinkLost(f"server {name} is not there"))
        else:
            link.submit(change)

    def distrust(self, name: str, seconds: float = 2.0) -> None:
        """Does without a server for a while."""
        with self._lock:
            self._distrusted[name] = time.monotonic() + seconds

    def distrusted(self) -> set[str]:
        with self._lock:
            now = time.monotonic()
            return {name for name, until in self._distrusted.items() if until > now}

    def close(self) -> None:
        with self._lock:
            links = list(self._links.values())
            self._links.clear()
            self._addresses.clear()
        for one in links:
            one.close("this server ends")

    def _report(self, name: str, why: Exception) -> None:
        _log.warning("the link to server %s is over: %s", name, why)
        self.distrust(name)
        self._lost(name, why)
