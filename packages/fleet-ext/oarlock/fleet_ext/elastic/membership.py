"""Who is there, kept in a store. No node leads: any of them may propose the next epoch, and the first proposal counts."""

import json
import logging
import threading
import time
from collections.abc import Callable, Collection

from oarlock.fleet_ext.elastic.epochs import Epoch, Size, following
from oarlock.fleet_ext.rendezvous import Outdated, Store, StoreError

LEASE_S = 1.0  #: after which a node that stopped is lost
ALL = "elastic/"  #: keys of a job in its store, which others may read, too
NODES, LOST, RESTING = ALL + "nodes/", ALL + "lost/", ALL + "resting/"
EPOCH, ARRIVALS, SIZE, DONE = ALL + "epoch", ALL + "arrivals", ALL + "size", ALL + "done"
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
        rest: seconds for which this node rests when it is put out; twice as many each further time.
        longest_rest: and never more.
    """

    def __init__(
        self, store: Store, node: str, size: Size, *, gone: Callable[[str], None],
        lease: float = LEASE_S, rest: float = 30.0, longest_rest: float = 3600.0,
    ) -> None:  # fmt: skip
        self._store, self.node, self._size, self._gone = store, node, size, gone
        self._seconds = lease
        self._rest, self._longest_rest = rest, longest_rest  #: of the next time
        self._rests_until: float | None = None
        self._there: frozenset[str] = frozenset()  #: who could train, as seen last
        self._epoch: Epoch | None = None
        raw = store.get(EPOCH)
        self._born = (
            Epoch.unpack(raw).number if raw is not None else 0
        )  #: whoever had this name then is gone
        self._void_since: float | None = None  #: nobody of the present epoch is there
        self._outdated = 0  #: number of the epoch that others wait to join, or that has another size than was asked for
        self._over = threading.Event()
        self._came = time.monotonic()
        self._register()
        self._thread = threading.Thread(target=self._watch, name=f"membership {node}", daemon=True)
        self._thread.start()

    @property
    def size(self) -> Size:
        """How many train."""
        said = self._store.get(SIZE)
        return Size(**json.loads(said)) if said is not None else self._size

    @property
    def waiting(self) -> bool:
        """Whether the next epoch would have other nodes than the present one."""
        return self._epoch is not None and self._outdated == self._epoch.number

    @property
    def spares(self) -> int:
        """Nodes that could take a place in the next epoch, as seen last."""
        return len(self._there.difference(self._epoch.nodes)) if self._epoch is not None else 0

    def put_out(self, nodes: Collection[str]) -> None:
        """The next epoch does without these, which hold the others up, unless there are too few without them.

        They stay, rest for a while, and wait behind all others then. Any node may say it, and all may.
        """
        for node in nodes:
            self._store.set(RESTING + node, b"")

    def resize(self, size: Size) -> None:
        """Asks for another number of nodes, which the next epoch has; any node may."""
        self._store.set(SIZE, json.dumps({"least": size.least, "most": size.most}).encode())

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
            revision, found = self._store.read(ALL)
            if DONE in found:
                raise Finished
            if NODES + self.node not in found or LOST + self.node in found:
                self._register()  # it can move, whatever its lease and the others say
            if RESTING + self.node in found:
                self._take_rest()
            raw = self._store.get(EPOCH)
            current = Epoch.unpack(raw) if raw is not None else None
            known = self._epoch.number if self._epoch is not None else self._born
            if current is not None and current.number > known:
                self._epoch, lost = current, ()
                if self.node in current.nodes:
                    return current
                self._register()  # the others took it for lost
            elif self._propose(raw, current, lost):
                continue
            else:
                lost = ()  # they are marked, until they say again that they are there
            there, least = sorted(self._present()[0]), self.size.least
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
        self._store.set(DONE, b"")

    def close(self) -> None:
        """Leaves."""
        self._over.set()
        self._lease.release()

    def _register(self) -> None:
        """Comes, or comes again, behind all others that wait."""
        self._lease = self._store.lease(self._seconds).renew()
        arrival = self._store.add(ARRIVALS, 1)
        self._store.set(NODES + self.node, str(arrival).encode(), lease=self._lease)
        self._store.delete(LOST + self.node)

    def _take_rest(self) -> None:
        """Begins to rest, or comes again when it has rested."""
        now = time.monotonic()
        if self._rests_until is None:
            _log.info("node %s was put out, and rests for %g s", self.node, self._rest)
            self._rests_until = now + self._rest
            self._rest = min(2 * self._rest, self._longest_rest)
        elif now >= self._rests_until:
            self._rests_until = None
            self._register()
            self._store.delete(RESTING + self.node)

    def _propose(self, raw: bytes | None, current: Epoch | None, lost: Collection[str]) -> bool:
        """Whether there may be another epoch now."""
        takes_part = current is not None and self._epoch is not None and self.node in current.nodes
        if not takes_part and not self._begins(current):
            return False
        for node in lost:
            self._store.set(LOST + node, b"")
        made = self._following(current, lost)
        if made is None:
            return False
        self._store.compare_set(EPOCH, raw, made.pack())
        return True

    def _begins(self, current: Epoch | None) -> bool:
        """Whether nobody trains, and enough nodes have come, or had the time to, for those who wait to begin.

        While anybody trains, those who wait leave it to them.
        """
        there, _ = self._present()
        if current is not None and current.staying(there):
            self._void_since = None
            return False
        if self._void_since is None:
            self._void_since = time.monotonic()
        waited = time.monotonic() - (self._came if current is None else self._void_since)
        return waited >= GATHER_S or len(there) >= self.size.most

    def _following(self, current: Epoch | None, lost: Collection[str]) -> Epoch | None:
        arrivals, resting = self._present()
        return following(current, arrivals, lost, self.size, resting)

    def _present(self) -> tuple[dict[str, int], frozenset[str]]:
        """Nodes that are there and were not taken for lost, in the order of arrival; and who rests."""
        _, found = self._store.read(ALL)
        nodes = {
            key.removeprefix(NODES): int(value)
            for key, value in found.items()
            if key.startswith(NODES) and LOST + key.removeprefix(NODES) not in found
        }
        return nodes, frozenset(one for one in nodes if RESTING + one in found)

    def _until_change(self, revision: int, seconds: float) -> None:
        try:
            self._store.watch(ALL, revision, seconds)
        except Outdated:
            pass  # much has changed, then

    def _watch(self) -> None:
        revision, _ = self._store.read(ALL)
        while not self._over.is_set():
            try:
                revision, changes = self._store.watch(ALL, revision, _WATCH_S)
                self._look({change.key for change in changes if change.value is None})
            except Outdated:
                revision, _ = self._store.read(ALL)
            except StoreError:
                self._over.wait(_LOOK_S)

    def _look(self, deleted: Collection[str]) -> None:
        epoch = self._epoch
        for node in epoch.nodes if epoch is not None and self.node in epoch.nodes else ():
            if NODES + node in deleted:
                self._gone(node)
        arrivals, resting = self._present()
        self._there = frozenset(arrivals.keys() - resting)
        if epoch is None or self.node not in epoch.nodes:
            return
        made = following(epoch, arrivals, (), self.size, resting)
        if made is not None and made.nodes != epoch.nodes:
            self._outdated = epoch.number
