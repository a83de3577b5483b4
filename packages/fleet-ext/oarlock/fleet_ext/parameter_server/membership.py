"""A server's place among the others, kept in a store: its lease, the map of shards, and who is there.

The lease is renewed only while the server's own work moves on, so one that hangs is lost like one that is dead.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from oarlock.fleet_ext.parameter_server.layout import Layout
from oarlock.fleet_ext.parameter_server.placement import Map
from oarlock.fleet_ext.rendezvous import Lease, LeaseLost, Outdated, Store, StoreError

ALL = "tables/"
LAYOUT, MAP = ALL + "layout", ALL + "map"
SERVERS, WORKERS = ALL + "servers/", ALL + "workers/"
_LOOK_S = 0.5  #: between two looks at the least
_WATCH_S = 5.0
_TRIES = 50  #: to change the map while others do, too

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """A server.

    Args:
        address: host and port.
        leaving: whether its shards should go to others.
    """

    address: tuple[str, int]
    leaving: bool = False

    def pack(self) -> bytes:
        return json.dumps([self.address, self.leaving]).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> "Member":
        (host, port), leaving = json.loads(packed)
        return cls((host, port), leaving)


@dataclass(frozen=True, slots=True)
class View:
    """What the store says.

    Args:
        map: None before the first server came.
        servers: that are there.
        workers: client of each rank that is there.
    """

    map: Map | None
    servers: dict[str, Member]
    workers: dict[int, str]

    @classmethod
    def read(cls, store: Store) -> "View":
        """
        Raises:
            StoreError: the store is not there.
        """
        _, found = store.read(ALL)
        return cls(
            Map.unpack(found[MAP]) if MAP in found else None,
            {key.removeprefix(SERVERS): Member.unpack(value)
             for key, value in found.items() if key.startswith(SERVERS)},
            {int(key.removeprefix(WORKERS)): value.decode()
             for key, value in found.items() if key.startswith(WORKERS)},
        )  # fmt: skip


def agreed(store: Store, layout: Layout) -> None:
    """Sets the job's layout, or finds that it is the same.

    Raises:
        ValueError: it is another.
    """
    if store.compare_set(LAYOUT, None, layout.pack()):
        return
    found = store.get(LAYOUT)
    if found is None or Layout.unpack(found) != layout:
        raise ValueError(
            "layout must be that of the servers which are there already (tables, shards, replicas); clear(store) forgets it"
        )


def clear(store: Store) -> None:
    """Forgets layout and map of tables whose servers are all gone, so that others can begin anew.

    Raises:
        ValueError: there are servers.
    """
    servers = [key.removeprefix(SERVERS) for key in store.keys(SERVERS)]
    if servers:
        raise ValueError(f"store has servers: end {', '.join(servers)} first")
    store.delete(MAP)
    store.delete(LAYOUT)


class Membership:
    """
    Args:
        store: which all servers and clients share.
        name: of this server, which no other process ever has.
        member: what others are told of it.
        changed: called from threads of this, now and then and after each change.
        plan: called behind it, from one thread only; may take its time.
        stuck: seconds since which the server's longest piece of work goes on.
        failed: told of an error of the server's own.
        lease: seconds after which a server that does not move is lost.
        hang: seconds that a piece of work may take.
    """

    def __init__(
        self, store: Store, name: str, member: Member, *, changed: Callable[[View], None],
        plan: Callable[[View], None], stuck: Callable[[], float], failed: Callable[[Exception], None], lease: float,
        hang: float,
    ) -> None:  # fmt: skip
        self._store, self.name, self._member = store, name, member
        self._changed, self._plan, self._stuck, self._failed = changed, plan, stuck, failed
        self._seconds, self._hang = lease, hang
        self._lease: Lease | None = None
        self._seen = -math.inf  #: when the newest map was asked for, on the monotonic clock
        self._over, self._look = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(
                target=self._guarded, args=(one,), name=f"tables {what} {name}", daemon=True
            )
            for what, one in (
                ("lease", self._keep_all),
                ("watch", self._watch_all),
                ("plan", self._look_all),
            )
        ]

    def open(self) -> None:
        """Comes: others see it."""
        self._register()
        for one in self._threads:
            one.start()

    @property
    def left(self) -> float:
        """Seconds for which nobody can have taken this server for lost by its lease."""
        lease = self._lease
        return -1.0 if lease is None else lease.left

    @property
    def age(self) -> float:
        """Seconds since which this server cannot know that its copies are still counted among all."""
        return time.monotonic() - self._seen

    def look(self) -> None:
        """Looks at the store soon."""
        self._look.set()

    def propose(self, change: Callable[[Map], Map | None]) -> Map | None:
        """Changes the map.

        Args:
            change: gives the map that follows, or None: called again where another was faster.

        Returns:
            the new map; None where there is none.

        Raises:
            StoreError: the store is not there; the map may or may not be changed.
        """
        for _ in range(_TRIES):
            raw = self._store.get(MAP)
            if raw is None:
                raise StoreError("there is no map of tables in the store any more")
            made = change(Map.unpack(raw))
            if made is None:
                return None
            if self._store.compare_set(MAP, raw, made.pack()):
                self.look()
                return made
        return None

    def worker(self, rank: int) -> str | None:
        """The client of a rank, as the store says now."""
        found = self._store.get(f"{WORKERS}{rank}")
        return None if found is None else found.decode()

    def lost(self, name: str) -> None:
        """Tells all that a server is gone, before its lease ends. One that is there after all comes again."""
        self._store.delete(SERVERS + name)

    def leave(self) -> None:
        """Asks others to take this server's shards."""
        with self._lock:
            self._member = Member(self._member.address, leaving=True)
            if self._lease is not None:
                self._store.set(SERVERS + self.name, self._member.pack(), lease=self._lease)

    def close(self, *, release: bool = True) -> None:
        """Leaves.

        Args:
            release: tell others at once; else they know when the lease ends.
        """
        self._over.set()
        self._look.set()
        lease, self._lease = self._lease, None
        if release and lease is not None:
            try:
                lease.release()
            except StoreError as error:
                _log.info("server %s leaves without a word: %s", self.name, error)

    def _register(self) -> None:
        lease = self._store.lease(self._seconds)
        with self._lock:
            self._store.set(SERVERS + self.name, self._member.pack(), lease=lease)
            # What happened meanwhile counts before this server believes its lease.
            begun = time.monotonic()
            self._take(View.read(self._store), begun)
            self._lease = lease

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except Exception as error:  # without this thread the server would be there for show
            if not self._over.is_set():
                self._failed(error)

    def _keep_all(self) -> None:
        while not self._over.wait(self._seconds / 3):
            stuck = self._stuck()
            if stuck > self._hang:
                _log.warning("server %s is stuck for %.1f s: it lets its lease end", self.name, stuck)  # fmt: skip
                continue
            lease = self._lease
            try:
                if lease is None:
                    return
                lease.keep()
            except LeaseLost:
                _log.warning("server %s was taken for lost, and comes again", self.name)
                self._come_again()
            except StoreError as error:
                _log.info("server %s: %s", self.name, error)

    def _come_again(self) -> None:
        try:
            self._register()
        except StoreError as error:
            _log.info("server %s cannot come again yet: %s", self.name, error)

    def _watch_all(self) -> None:
        revision = 0
        while not self._over.is_set():
            try:
                if revision == 0:
                    revision, _ = self._store.read(ALL)
                    self._look.set()
                revision, changes = self._store.watch(ALL, revision, _WATCH_S)
                if changes:
                    self._look.set()
            except Outdated:
                revision = 0
            except StoreError:
                self._over.wait(_LOOK_S)

    def _look_all(self) -> None:
        while not self._over.is_set():
            self._look.wait(_LOOK_S)
            self._look.clear()
            if self._over.is_set():
                return
            try:
                begun = time.monotonic()
                view = View.read(self._store)
                if self.name not in view.servers and self.left > 0:
                    self._again(view)
                self._take(view, begun)
                if self.name in view.servers:
                    self._plan(view)
            except StoreError as error:
                _log.info("server %s: %s", self.name, error)
                time.sleep(0.05)

    def _take(self, view: View, begun: float) -> None:
        self._changed(view)
        self._seen = max(self._seen, begun)

    def _again(self, view: View) -> None:
        """Says that it is there, to those who took it for gone."""
        with self._lock:
            if self._lease is not None and not self._over.is_set():
                self._store.set(SERVERS + self.name, self._member.pack(), lease=self._lease)
                view.servers[self.name] = self._member
