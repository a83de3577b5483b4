"""Who is there, kept in a store. No node leads: any of them may propose the next epoch, and the first proposal counts."""

import json
import logging
import threading
import time
from collections.abc import Callable, Collection

from oarlock.fleet_ext.elastic.epochs import Epoch, Size, following
from oarlock.fleet_ext.rendezvous import Outdated, Store, StoreError

LEASE_S = 1.0  #: after which a node that stopped is lost
_ALL = "elastic/"
_NODES, _LOST = _ALL + "nodes/", _ALL + "lost/"
_EPOCH, _ARRIVALS, _SIZE, _DONE = _ALL + "epoch", _ALL + "arrivals", _ALL + "size", _ALL + "done"
GATHER_S = 3.0  #: at the beginning, for more nodes than are needed
_WATCH_S = 5.0
_LOOK_S = 0.5


_log = logging.getLogger(__name__)


class Finished(Exception):
    """The job is done."""


class Membership:
    """A node's place among the others.

    Args:
        store: which all nodes share.
        node: its name, which no other node has.
        size: how many train, unless `resize` has said otherwise.
        gone: called from another thread when a node of the present epoch is no longer there, with its name.
        lease: seconds after which a node that does not move is lost.
    """

    def __init__(
        self, store: Store, node: str, size: Size, *, gone: Callable[[str], None],
        lease: float = LEASE_S,
    ) -> None:  # fmt: skip
        self._store, self.node, self._size, self._gone = store, node, size, gone
        self._seconds = lease
        self._epoch: Epoch | None = None
        self._outdated = 0  #: number of the epoch that others wait to join, or that has another size than was asked for
        self._over = threading.Event()
        self._came = time.monotonic()
        self._register()
        self._thread = threading.Thread(target=self._watch, name=f"membership {node}", daemon=True)
        self._thread.start()

    @property
    def size(self) -> Size:
        """How many train."""
        said = self._store.get(_SIZE)
        return Size(**json.loads(said)) if said is not None else self._size

    @property
    def waiting(self) -> bool:
        """Whether the next epoch would have other nodes than the present one."""
        return self._epoch is not None and self._outdated == self._epoch.number

    def resize(self, size: Size) -> None:
        """Asks for another number of nodes, which the next epoch has; any node may."""
        self._store.set(_SIZE, json.dumps({"least": size.least, "most": size.most}).encode())

    def next(self, lost: Collection[str], timeout: float) -> Epoch:
        """Agrees with the others on the epoch behind the present one, and waits until this node is in it.

        A spare node waits for as long as the others go on.

        Args:
            lost: nodes of the present epoch that this node cannot reach, or that hang.
            timeout: seconds for enough nodes to come.

        Raises:
            Finished: the job is done.
            TimeoutError: too few nodes came.
        """
        until, told = time.monotonic() + timeout, [""]
        while True:
            revision, found = self._store.read(_ALL)
            if _DONE in found:
                raise Finished
            if _NODES + self.node not in found or _LOST + self.node in found:
                self._register()  # it can move, whatever its lease and the others say
            raw = self._store.get(_EPOCH)
            current = Epoch.unpack(raw) if raw is not None else None
            if current is not None and (self._epoch is None or current.number > self._epoch.number):
                self._epoch, lost = current, ()
                if self.node in current.nodes:
                    return current
                self._register()  # the others took it for lost
            elif self._propose(raw, current, lost):
                continue
            else:
                lost = ()  # they are marked, until they say again that they are there
            there, least = sorted(self._arrivals()), self.size.least
            if time.monotonic() > until and len(there) < least:
                raise TimeoutError(
                    f"too few nodes in {timeout:g} s: there are {', '.join(there)}, and {least} are needed"
                )
            if there != told:
                _log.info(
                    "node %s waits: there are %s, and %d are needed",
                    self.node,
                    ", ".join(there),
                    least,
                )
                told = there
            self._until_change(revision, _LOOK_S)

    def finish(self) -> None:
        """Tells those who wait that the job is done."""
        self._store.set(_DONE, b"")

    def close(self) -> None:
        """Leaves."""
        self._over.set()
        self._lease.release()

    def _register(self) -> None:
        """Comes, or comes again, behind all others that wait."""
        self._lease = self._store.lease(self._seconds).renew()
        arrival = self._store.add(_ARRIVALS, 1)
        self._store.set(_NODES + self.node, str(arrival).encode(), lease=self._lease)
        self._store.delete(_LOST + self.node)

    def _propose(self, raw: bytes | None, current: Epoch | None, lost: Collection[str]) -> bool:
        """Whether there may be another epoch now."""
        if current is not None and self.node not in current.nodes:
            return False  # who waits leaves it to those who train
        if (
            current is None
            and time.monotonic() < self._came + GATHER_S
            and (len(self._arrivals()) < self.size.most)
        ):
            return False
        for node in lost:
            self._store.set(_LOST + node, b"")
        made = following(current, self._arrivals(), lost, self.size)
        if made is None:
            return False
        self._store.compare_set(_EPOCH, raw, made.pack())
        return True

    def _arrivals(self) -> dict[str, int]:
        """Nodes that are there and were not taken for lost."""
        _, found = self._store.read(_ALL)
        return {
            key.removeprefix(_NODES): int(value)
            for key, value in found.items()
            if key.startswith(_NODES) and _LOST + key.removeprefix(_NODES) not in found
        }

    def _until_change(self, revision: int, seconds: float) -> None:
        try:
            self._store.watch(_ALL, revision, seconds)
        except Outdated:
            pass  # much has changed, then

    def _watch(self) -> None:
        revision, _ = self._store.read(_ALL)
        while not self._over.is_set():
            try:
                revision, changes = self._store.watch(_ALL, revision, _WATCH_S)
                self._look({change.key for change in changes if change.value is None})
            except Outdated:
                revision, _ = self._store.read(_ALL)
            except StoreError:
                self._over.wait(_LOOK_S)

    def _look(self, deleted: Collection[str]) -> None:
        epoch = self._epoch
        if epoch is None or self.node not in epoch.nodes:
            return
        for node in epoch.nodes:
            if _NODES + node in deleted:
                self._gone(node)
        made = following(epoch, self._arrivals(), (), self.size)
        if made is not None and made.nodes != epoch.nodes:
            self._outdated = epoch.number
