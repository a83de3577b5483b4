"""A client's way to shards: the map as it was last read, and a connection to each server."""

import socket
import time
from collections.abc import Callable, Sequence

import numpy as np

from oarlock.fleet_ext.parameter_server import messages
from oarlock.fleet_ext.parameter_server.errors import Unavailable
from oarlock.fleet_ext.parameter_server.hashing import shard_of
from oarlock.fleet_ext.parameter_server.layout import Layout
from oarlock.fleet_ext.parameter_server.membership import LAYOUT, View
from oarlock.fleet_ext.parameter_server.messages import Message
from oarlock.fleet_ext.parameter_server.placement import Place
from oarlock.fleet_ext.rendezvous import Store, StoreError
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.errors import Refused

CONNECT_S = 2.0
SEND_S = 10.0
PAUSE_S = 0.02  #: between two tries
LATE_S = 2.0  #: for a server to say for whom it waits
LOOK_S = 0.25  #: without an answer, until the map is looked at again

#: What can be wrong with a server, or the way to it.
FAILURES = (OSError, EOFError, Refused)


class Cut:
    """Keys in the order of their shards.

    Attributes:
        order: int64 [n], which of the given keys comes where.
        bounds: of each shard's keys among the ordered ones.
    """

    def __init__(self, keys: np.ndarray, salt: int, shards: int) -> None:
        where = shard_of(keys, salt, shards)
        self.order = np.argsort(where, kind="stable")
        self.keys = keys[self.order]
        ends = np.cumsum(np.bincount(where, minlength=shards))
        self.bounds = {
            int(shard): (int(ends[shard - 1]) if shard else 0, int(ends[shard])) for shard in np.unique(where)
        }  # fmt: skip

    def count(self, shard: int) -> int:
        begin, end = self.bounds[shard]
        return end - begin

    def of(self, ordered: np.ndarray, shards: Sequence[int]) -> np.ndarray:
        """The rows of some shards of an array in this order."""
        return np.concatenate([ordered[slice(*self.bounds[shard])] for shard in shards])


class Routes:
    """Used by one thread at a time.

    Args:
        store, job, token, tls: of the job.
        timeout: seconds for the first server to come, and for each exchange.
        connect: seconds for a connection.

    Raises:
        TimeoutError: there are no servers.
    """

    def __init__(
        self, store: Store, job: str, token: str, tls: wire.Tls | None, timeout: float,
        connect: float = CONNECT_S,
    ) -> None:  # fmt: skip
        self._store, self._job, self._token, self._tls = store, job, token, tls
        self.timeout, self._connect = timeout, connect
        self.layout = Layout.unpack(store.wait([LAYOUT], timeout)[LAYOUT])
        self._lines: dict[str, socket.socket] = {}
        self.view = View.read(store)

    def another(self) -> "Routes":
        """For another thread."""
        return Routes(self._store, self._job, self._token, self._tls, self.timeout)

    def place(self, shard: int) -> Place | None:
        return None if self.view.map is None else self.view.map.places[shard]

    def refresh(self) -> None:
        """Reads the map again; where the store is not there, the old one stays."""
        try:
            self.take(View.read(self._store))
        except StoreError:
            return

    def take(self, view: View) -> None:
        """Goes by another view."""
        self.view = view
        for name in [name for name in self._lines if name not in self.view.servers]:
            self.drop(name)

    def send(self, server: str, message: Message) -> None:
        """
        Raises:
            FAILURES: the server is not there.
        """
        line = self._lines.get(server)
        if line is None:
            member = self.view.servers.get(server)
            if member is None:
                raise ConnectionError(f"server {server} is not there")
            line = self._lines[server] = messages.greeted(
                member.address, self._job, self._token, self._tls, self._connect
            )
        messages.send(line, message, SEND_S)

    def receive(self, server: str, seconds: float, still: Callable[[], bool]) -> Message:
        """The answer of a server.

        Args:
            seconds: that it may take to begin.
            still: asked now and then whether it is worth waiting.

        Raises:
            FAILURES: none came.
        """
        line, until = self._lines.get(server), time.monotonic() + seconds
        if line is None:  # a look at the map, while another was waited for, has dropped it
            raise ConnectionError(f"server {server} is not there any more")
        while True:
            left = until - time.monotonic()
            try:
                first = messages.begin(line, max(1e-3, min(left, LOOK_S)))
            except TimeoutError:
                if left <= 0 or not still():
                    raise TimeoutError(f"server {server} does not answer") from None
                continue
            return messages.receive(line, None, first)

    def drop(self, server: str) -> None:
        line = self._lines.pop(server, None)
        if line is not None:
            line.close()

    def exchange(
        self, what: str, shards: Sequence[int], build: Callable[[Sequence[int]], Message],
        accept: Callable[[Sequence[int], Message], dict[int, str]],
    ) -> None:  # fmt: skip
        """Asks the primaries of shards until all have answered.

        Args:
            what: in messages.
            build: the request to a server about some of the shards.
            accept: takes an answer; gives the shards that have to be asked again, and why.

        Raises:
            Unavailable: some did not answer in time.
        """
        until = time.monotonic() + self.timeout
        pending: dict[int, str] = dict.fromkeys(shards, "")
        while True:
            asked: list[tuple[str, list[int]]] = []
            for server, mine in self._by_server(pending).items():
                try:
                    self.send(server, build(mine))
                    asked.append((server, mine))
                except FAILURES as error:
                    self.drop(server)
                    pending.update(dict.fromkeys(mine, f"server {server}: {error}"))
            for server, mine in asked:
                try:
                    answer = self.receive(
                        server,
                        max(0.0, until - time.monotonic()) + LATE_S,
                        lambda: self._lead(server, mine),
                    )
                    again = accept(mine, answer)
                except FAILURES as error:
                    self.drop(server)
                    again = dict.fromkeys(mine, f"server {server}: {error}")
                for shard in mine:
                    del pending[shard]
                pending.update(again)
            if not pending:
                return
            if time.monotonic() > until:
                raise self._lament(what, pending)
            time.sleep(PAUSE_S)
            self.refresh()

    def close(self) -> None:
        for name in list(self._lines):
            self.drop(name)

    def _by_server(self, pending: dict[int, str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for shard in sorted(pending):
            place = self.place(shard)
            if place is None:
                pending[shard] = "there is no map in the store"
            else:
                found.setdefault(place.primary, []).append(shard)
        return found

    def _lead(self, server: str, shards: Sequence[int]) -> bool:
        """Whether a server that does not answer is still who should."""
        self.refresh()
        places = [self.place(shard) for shard in shards]
        return server in self._lines and all(one is not None and one.primary == server for one in places)  # fmt: skip

    def _lament(self, what: str, pending: dict[int, str]) -> Unavailable:
        shard, why = next(iter(sorted(pending.items())))
        place = self.place(shard)
        where = "nowhere"
        if place is not None:
            where = f"on server {place.primary}"
            if place.primary not in self.view.servers and place.backup is None:
                where += ", which is gone with its only copy: restore a snapshot"
        return Unavailable(
            f"{what}: shard {shard}, {where}, and {len(pending) - 1} others were not available within"
            f" {self.timeout:g} s: {why}",
            shard,
        )
