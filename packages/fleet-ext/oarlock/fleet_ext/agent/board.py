"""What agents say in the store: one line each, which goes when the agent does."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Self

from oarlock.fleet_ext.agent.cluster import Cluster
from oarlock.fleet_ext.rendezvous import LeaseLost, Store, StoreError

LEASE_S = 5.0
_LOOK_S = 0.5
_NODES, _STARTS = "agent/nodes/", "agent/starts/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Of a node.

    Args:
        process: name of its training process in the job.
        pid: of it, or of what the agent started.
        phase: "starts", "outside", "waiting", "training", "pause".
        steps: that are taken, as its process knows.
        starts: of processes by this agent.
        last: why the last one ended, if one did.
    """

    process: str = ""
    pid: int = 0
    phase: str = "starts"
    steps: int = 0
    starts: int = 0
    last: str = ""

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        return cls(**json.loads(packed))


class NodeTaken(ValueError):
    """Another agent has the node's name."""


class Board:
    """An agent's line, kept up to date from a thread of its own, which also looks at the job.

    Args:
        store: nobody else's.
        node: name.
        line: what to write now.

    Attributes:
        cluster: the job as seen last; None while the store cannot be reached.
    """

    def __init__(self, store: Store, node: str, line: Callable[[], Line]) -> None:
        self._store, self._key, self._line = store, _NODES + node, line
        self.cluster: Cluster | None = None
        self._over = threading.Event()
        self._lease = store.lease(LEASE_S)
        self._claim(node)
        self._thread = threading.Thread(target=self._keep, name=f"board of {node}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes the line away."""
        self._over.set()
        self._thread.join(LEASE_S)
        try:
            self._lease.release()
        except StoreError:
            pass  # it is gone when the lease is over

    def _claim(self, node: str) -> None:
        """An agent that was killed has the name until its lease is over."""
        until = time.monotonic() + LEASE_S + 1.0
        while not self._store.compare_set(self._key, None, self._line().pack(), lease=self._lease):
            if time.monotonic() > until:
                self._lease.release()
                raise NodeTaken(
                    f"node {node!r} has an agent already: give each its own name (--node)"
                )
            time.sleep(0.2)
            self._lease.keep()

    def _keep(self) -> None:
        said = self._line()
        while not self._over.wait(_LOOK_S):
            try:
                self._lease.keep()
                if (line := self._line()) != said:
                    self._store.set(self._key, line.pack(), lease=self._lease)
                    said = line
                self.cluster = Cluster.read(self._store)
            except LeaseLost:
                self._begin_anew()
            except StoreError:
                self.cluster = None

    def _begin_anew(self) -> None:
        """The store was away for longer than the lease."""
        try:
            self._lease = self._store.lease(LEASE_S)
            self._store.set(self._key, self._line().pack(), lease=self._lease)
        except StoreError:
            self.cluster = None


def started(store: Store, node: str) -> int:
    """Counts a start of a node's process; the count never comes again, so a name made of it is new.

    Raises:
        StoreError: the store cannot be reached.
    """
    return store.add(_STARTS + node, 1)


def lines(store: Store) -> dict[str, Line]:
    """Of all agents, by node.

    Raises:
        StoreError: the store cannot be reached.
    """
    _, found = store.read(_NODES)
    return {key.removeprefix(_NODES): Line.unpack(value) for key, value in sorted(found.items())}
