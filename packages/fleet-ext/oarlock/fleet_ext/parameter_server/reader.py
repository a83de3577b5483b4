"""Tables for inference: read from any copy of a shard, with an answer also while servers fail."""

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from oarlock.fleet_ext.parameter_server.errors import Unavailable
from oarlock.fleet_ext.parameter_server.hashing import as_keys
from oarlock.fleet_ext.parameter_server.layout import Dense, Sparse
from oarlock.fleet_ext.parameter_server.messages import Message
from oarlock.fleet_ext.parameter_server.part import distinct
from oarlock.fleet_ext.parameter_server.routes import FAILURES, PAUSE_S, Cut, Routes
from oarlock.fleet_ext.parameter_server.membership import View
from oarlock.fleet_ext.rendezvous import Closed, Store, StoreError
from oarlock.fleet_ext.transport.wire import Tls

_AVOID_S = 2.0  #: a server that did not answer
_LOOK_S = 1.0  #: between two looks at the map while all is well


@dataclass(frozen=True, slots=True)
class Read:
    """
    Args:
        rows: float32 [n, width].
        age: seconds; every push that was acknowledged so long ago, or earlier, is in the rows.
    """

    rows: np.ndarray
    age: float


class Reader:
    """Reads rows and makes none: one that nobody has pushed is as its table's `initial` says.

    A copy has all acknowledged pushes as long as it is in the map, which servers look at all the time, and twice in a
    second at the least. So each answer says how long ago its servers did; one that has not looked for longer than
    `stalest` is not listened to.

    Args:
        store, token, job, tls: as of `Client`.
        stalest: seconds; larger ones keep answers coming while the store is gone.
        patience: seconds for a server to answer, until another copy is asked.
        timeout: seconds for a call.
    """

    def __init__(
        self, store: Store, *, token: str, job: str = "job", tls: Tls | None = None, stalest: float = 10.0,
        patience: float = 0.25, timeout: float = 10.0,
    ) -> None:  # fmt: skip
        for name, value in (("stalest", stalest), ("patience", patience), ("timeout", timeout)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0 s, not {value}")
        self._stalest, self._patience = stalest, patience
        self._routes = Routes(store, job, token, tls, timeout, patience)
        self.layout = self._routes.layout
        self._lock = threading.Lock()
        self._avoided: dict[str, float] = {}
        self._turn = 0
        # The store is asked from another thread: who reads does not wait for it.
        self._store, self._view = store, self._routes.view
        self._look, self._over = threading.Event(), False
        threading.Thread(target=self._look_all, name="tables reader", daemon=True).start()

    def read(self, table: str, keys: Any) -> Read:
        """Rows of a sparse table.

        Args:
            keys: integers [n], which may repeat.

        Raises:
            Unavailable: no copy of a shard answered in time.
        """
        if not isinstance(self.layout.table(table), Sparse):
            raise ValueError(f"table {table!r} is dense: use read_dense")
        unique, places = distinct(as_keys(keys))
        found = self._read(table, unique)
        return Read(found.rows[places], found.age)

    def read_dense(self, table: str) -> Read:
        """The array of a dense table, in its shape."""
        spec = self.layout.table(table)
        if not isinstance(spec, Dense):
            raise ValueError(f"table {table!r} is sparse: use read")
        found = self._read(table, np.arange(spec.blocks, dtype=np.int64))
        return Read(found.rows.reshape(-1)[: spec.size].reshape(spec.shape), found.age)

    def close(self) -> None:
        self._over = True
        self._look.set()
        with self._lock:
            self._routes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _read(self, table: str, keys: np.ndarray) -> Read:
        cut = Cut(keys, self.layout.salts[table], self.layout.shards)
        rows = np.empty((len(keys), self.layout.table(table).width), np.float32)
        with self._lock:
            return Read(rows, self._fill(table, cut, rows))

    def _fill(self, table: str, cut: Cut, rows: np.ndarray) -> float:
        routes, begun = self._routes, time.monotonic()
        routes.take(self._view)
        pending, oldest, why = set(cut.bounds), 0.0, "there is no map in the store"
        while pending:
            asked = []
            for server, shards in self._groups(pending).items():
                parts = [[shard, cut.count(shard)] for shard in shards]
                names = {"op": "read", "table": table, "parts": parts, "stalest": self._stalest}
                try:
                    routes.send(server, Message(names, [cut.of(cut.keys, shards)]))
                    asked.append((server, shards))
                except FAILURES as error:
                    why = self._avoid(server, error)
            for server, shards in asked:
                try:
                    answer = routes.receive(server, self._patience, lambda: True)
                except FAILURES as error:
                    why = self._avoid(server, error)
                    continue
                arrays = iter(answer.arrays)
                for shard, refused in zip(shards, answer.names["results"], strict=True):
                    if refused:
                        why = self._avoid(server, refused)
                    else:
                        rows[cut.order[slice(*cut.bounds[shard])]] = next(arrays)
                        pending.discard(shard)
                        oldest = max(oldest, answer.names["age"])
            if pending:
                if time.monotonic() - begun > routes.timeout:
                    raise Unavailable(
                        f"read of {table!r}: no copy of shard {min(pending)} and {len(pending) - 1} others answered"
                        f" within {routes.timeout:g} s: {why}",
                        min(pending),
                    )
                self._look.set()
                time.sleep(PAUSE_S)
                routes.take(self._view)
        return oldest + (time.monotonic() - begun)

    def _look_all(self) -> None:
        while not self._over:
            self._look.wait(_LOOK_S)
            self._look.clear()
            try:
                self._view = View.read(self._store)
            except Closed:
                return
            except StoreError:
                continue  # what was read last is what there is

    def _groups(self, pending: set[int]) -> dict[str, list[int]]:
        """Shards by the server to ask: copies in turn, but those that did not answer last."""
        now = time.monotonic()
        found: dict[str, list[int]] = {}
        self._turn += 1
        for shard in sorted(pending):
            place = self._routes.place(shard)
            if place is None:
                continue
            copies = place.copies
            turned = copies[self._turn % len(copies) :] + copies[: self._turn % len(copies)]
            chosen = min(turned, key=lambda name: self._avoided.get(name, 0.0) > now)
            found.setdefault(chosen, []).append(shard)
        return found

    def _avoid(self, server: str, why: object) -> str:
        self._routes.drop(server)
        self._avoided[server] = time.monotonic() + _AVOID_S
        return f"server {server}: {why}"
