"""One server of tables: a process that holds shards, as primary of some and as backup of others."""

import logging
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from oarlock.fleet_ext.parameter_server import requests
from oarlock.fleet_ext.parameter_server.cold import ColdStore
from oarlock.fleet_ext.parameter_server.copying import Copying
from oarlock.fleet_ext.parameter_server.errors import Moved
from oarlock.fleet_ext.parameter_server.following import Following
from oarlock.fleet_ext.parameter_server.layout import Layout
from oarlock.fleet_ext.parameter_server.leading import Leading
from oarlock.fleet_ext.parameter_server.links import Links
from oarlock.fleet_ext.parameter_server.membership import MAP, Member, Membership, View, agreed
from oarlock.fleet_ext.parameter_server.messages import Message
from oarlock.fleet_ext.parameter_server.placement import Map, handovers, proposal
from oarlock.fleet_ext.parameter_server.serving import Port
from oarlock.fleet_ext.parameter_server.shard import Shard, ShardImage
from oarlock.fleet_ext.parameter_server.slots import Busy, Slot
from oarlock.fleet_ext.rendezvous import Store, StoreError
from oarlock.fleet_ext.transport.errors import Refused
from oarlock.fleet_ext.transport.wire import Tls

LEASE_S = 2.0
HANG_S = 10.0
_PROBE_S = 0.5
_CLOSE_S = 5.0
_PEER = "peer"  #: where a connection keeps the name of a primary

_log = logging.getLogger(__name__)


class TableServer:
    """Serves until it is closed. One that fails ends itself, so that others take over: nothing goes on with half a change.

    Args:
        store: which all servers and clients share.
        layout: of the job; the same on all servers.
        job, token, tls: of the job, as clients have them.
        name: of this server, for people.
        host, port: where it listens; 0 for a free port.
        advertise: by which others reach it, where that is not `host`.
        folder: of its own, for tables with `hot_rows`; what an earlier server left there is removed.
        lease: seconds after which a server that stands still is lost.
        hang: seconds that one piece of work may take; after that the lease is not renewed.

    Raises:
        ValueError: servers that are there have another layout; or the folder is missing, or used by another.
        StoreError: the store is not there.
        OSError: the port cannot be listened on.
    """

    def __init__(
        self, store: Store, *, layout: Layout, token: str, job: str = "job", name: str = "server",
        host: str = "127.0.0.1", port: int = 0, advertise: str | None = None, tls: Tls | None = None,
        folder: Path | str | None = None, lease: float = LEASE_S, hang: float = HANG_S,
    ) -> None:  # fmt: skip
        if host in ("", "0.0.0.0", "::") and advertise is None:
            raise ValueError(f"advertise must say how others reach a server on {host or 'all addresses'}")  # fmt: skip
        if not name or len(name) > 60 or "/" in name:
            raise ValueError(f"name must have 1 to 60 characters and no slash, not {name!r}")
        tiered = any(one.hot_rows is not None for one in layout.tables.values())
        if tiered and folder is None:
            raise ValueError("folder must be given: a table has hot_rows, and its other rows need a disk")  # fmt: skip
        agreed(store, layout)
        self._store, self._layout = store, layout
        self.name = f"{name}.{secrets.token_hex(4)}"  #: which no other process has
        self.error: Exception | None = None  #: why it ended itself
        self._over = threading.Event()
        self._ending = threading.Lock()
        self._cold = ColdStore(Path(folder)) if tiered and folder is not None else None
        try:
            self._port = Port(self._answer, self._fail, self._forget, job=job, token=token, host=host, port=port,
                              tls=tls)  # fmt: skip
        except BaseException:
            if self._cold is not None:
                self._cold.close()
            raise
        self.address = (advertise or host, self._port.address[1])
        self._slots = [Slot(number, self.name) for number in range(layout.shards)]
        self._busy = Busy()
        self._links = Links(self.name, job, token, tls, self._link_lost)
        self._membership = Membership(
            store, self.name, Member(self.address), changed=self._move, plan=self._plan,
            stuck=self._busy.longest, failed=self._fail, lease=lease, hang=hang,
        )  # fmt: skip
        self._following = Following(layout, self.name, self._slots, self._make, self._busy)
        self._copying = Copying(
            self._membership, self._links, layout.replicas, job, token, tls, self._fail
        )
        self._leading = Leading(
            layout, self._membership, self._links, self._slots, self._busy, self._copying.do_without_backup
        )  # fmt: skip
        try:
            store.compare_set(MAP, None, Map.first(self.name, layout.shards).pack())
            self._port.open()
            self._membership.open()
        except BaseException:
            self.close()
            raise

    def drain(self, timeout: float) -> None:
        """Gives all shards to other servers, while they are in use.

        Where there is one other server only, it leads all of them in the end, and this one was the last with other copies.

        Raises:
            TimeoutError: some are still here; without another server, all.
        """
        self._membership.leave()
        until = time.monotonic() + timeout
        while left := self._left(View.read(self._store)):
            if self._over.wait(0.05) or time.monotonic() > until:
                raise TimeoutError(
                    f"server {self.name} still has {left} shards after {timeout:g} s: are there others to take them?"
                )

    def _left(self, view: View) -> int:
        """Shards that others should have before this server may go."""
        places = () if view.map is None else view.map.places
        others = sum(not one.leaving for name, one in view.servers.items() if name != self.name)
        if others and others < self._layout.replicas:
            return sum(one.primary == self.name for one in places)
        return sum(self.name in (*one.copies, one.joining) for one in places)

    def wait(self, timeout: float | None = None) -> bool:
        """Until it is closed, or has ended itself: then `error` says why. Whether it has."""
        return self._over.wait(timeout)

    def close(self) -> None:
        """Ends at once; backups of its shards take over."""
        self._end(release=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _end(self, *, release: bool) -> None:
        with self._ending:
            if self._over.is_set():
                return
            self._over.set()
        self._port.close()
        self._membership.close(release=release)
        self._links.close()
        self._copying.close()
        if all([self._emptied(slot) for slot in self._slots]) and self._cold is not None:
            self._cold.close()

    @staticmethod
    def _emptied(slot: Slot) -> bool:
        """Whether nobody uses a slot's copy any more."""
        if not slot.condition.acquire(timeout=_CLOSE_S):
            return False
        slot.shard = slot.building = None
        slot.condition.release()
        return True

    def _fail(self, error: Exception) -> None:
        """Ends the server, in a thread that nobody here waits for."""
        if self.error is None:
            self.error = error
            _log.critical("server %s ends itself", self.name, exc_info=error)
            threading.Thread(target=self.close, name="tables end", daemon=True).start()

    def _make(self, number: int) -> Shard:
        return Shard(self._layout, number, self._cold)

    # What the map says.

    def _move(self, view: View) -> None:
        """Takes the newest map."""
        self._links.update({name: one.address for name, one in view.servers.items()})
        if view.map is None or self._over.is_set():
            return
        for slot, place in zip(self._slots, view.map.places, strict=True):
            with slot.condition:
                slot.move(place)
                if place == slot.place and place.primary == self.name and slot.shard is None:
                    if place.epoch == 1:
                        slot.shard = self._make(slot.shard_number)
                    else:
                        _log.error("shard %d is lost: server %s does not have it", slot.shard_number, self.name)  # fmt: skip

    def _plan(self, view: View) -> None:
        """Proposes what should change, and does what the map asks for."""
        servers = {name: one.leaving for name, one in view.servers.items()}
        replicas, distrusted = self._layout.replicas, self._links.distrusted()

        def change(map: Map) -> Map | None:
            return proposal(map, self.name, servers, replicas, distrusted)

        if view.map is None:
            return
        if change(view.map) is not None and self._membership.propose(change) is not None:
            return  # the new map is looked at next
        for slot in self._slots:
            with slot.condition:
                wanted = slot.leads and slot.place is not None and slot.place.joining is not None
                wanted = wanted and slot.backlog is None
            if wanted:
                self._copying.ask(slot)
        for shard in handovers(view.map, self.name, servers)[:8]:
            self._copying.hand_over(self._slots[shard])
        self._drop_workers(view)

    def _drop_workers(self, view: View) -> None:
        """Lets others go on without workers whose lease is over."""
        for slot in self._slots:
            with slot.condition:
                leads = slot.leads and slot.shard is not None
                known = slot.shard.clocks.clients() if leads and slot.shard is not None else {}
            for rank, client in known.items():
                # What was read may be older than the worker; another in its place will join by itself.
                if rank not in view.workers and self._membership.worker(rank) is None:
                    self._leading.drop(slot, rank, client)

    def _link_lost(self, name: str, why: Exception) -> None:
        self._gone(name)
        self._membership.look()

    def _gone(self, name: str) -> None:
        """Tells others of a server that is dead for sure: nobody listens at its port any more."""
        address = self._links.address(name)
        if address is None or self._over.is_set():
            return
        try:
            socket.create_connection(address, timeout=_PROBE_S).close()
        except ConnectionRefusedError:
            try:
                self._membership.lost(name)
            except StoreError as error:
                _log.info("server %s: %s", self.name, error)
        except OSError:
            pass  # its lease will tell

    # What callers ask.

    def _answer(self, message: Message, kept: dict[str, object]) -> Iterable[Message]:
        names, shards = message.names, len(self._slots)
        if not isinstance(names, dict):
            raise Refused("a request has names")
        match names.get("op"):
            case "change":
                results = self._leading.change(requests.changes_of(message, shards))
                return [Message({"results": results})]
            case "pull":
                return [self._pull(message)]
            case "read":
                return [self._read(message)]
            case "image":
                return self._image(requests.number(names, "shard"))
            case "replicate":
                kept[_PEER] = requests.text(names, "from")
                parts = requests.replicated(message, shards)
                return [Message({"results": self._following.replicate(parts, message.arrays)})]
            case "install":
                return [Message({"results": [self._install(message, kept)]})]
            case "status":
                return [Message(self.status())]
        raise Refused(f"there is no request {names.get('op')!r:.40}")

    def _pull(self, message: Message) -> Message:
        names = message.names
        parts = requests.parts(names, len(self._slots), 4)
        keys = requests.keys_of(message, [one[3] for one in parts])
        table, client = requests.text(names, "table"), requests.text(names, "client")
        if table not in self._layout.tables:
            raise Refused(f"there is no table {table!r}")
        results, rows = self._leading.pull(table, client, parts, keys, requests.waits(names))
        return Message({"results": results}, rows)

    def _read(self, message: Message) -> Message:
        """Rows of whatever copy this is; how old they may be is told."""
        names = message.names
        parts = requests.parts(names, len(self._slots), 2)
        keys = requests.keys_of(message, [one[1] for one in parts])
        table, most = requests.text(names, "table"), requests.seconds(names, "stalest")
        if table not in self._layout.tables:
            raise Refused(f"there is no table {table!r}")
        age = self._membership.age
        if age > most:
            return Message(
                {
                    "results": [f"its last look at the map was {age:.1f} s ago"] * len(parts),
                    "age": age,
                }
            )
        results, rows, begin = [], [], 0
        for shard, count in parts:
            slot, part = self._slots[shard], keys[begin : begin + count]
            begin += count
            with slot.condition:
                here = slot.leads or slot.follows
                if here and slot.shard is not None:
                    with self._busy.working():
                        rows.append(slot.shard.parts[table].read(part))
            results.append("" if here else f"shard {shard} is not here")
        return Message({"results": results, "age": age}, rows)

    def _image(self, shard: int) -> Iterator[Message]:
        """A copy of a shard for a snapshot."""
        if shard >= len(self._slots):
            raise Refused(f"there is no shard {shard}")
        slot = self._slots[shard]
        with slot.condition:
            if not slot.leads or slot.shard is None or self._membership.left <= 0:
                yield Message({"error": str(Moved(f"server {self.name} does not lead shard {shard}"))})  # fmt: skip
                return
            image: ShardImage = slot.shard.image()
        try:
            yield Message({"index": image.plain["index"]})
            for table, keys, records in image.chunks():
                yield Message({"table": table}, [keys, records])
            yield Message({"end": True})
        finally:
            image.close()

    def _install(self, message: Message, kept: dict[str, object]) -> str:
        try:
            return self._following.install(message.names, message.arrays, kept)
        except (ValueError, TypeError, LookupError) as error:
            raise Refused(f"a copy of a shard is none: {error}") from error

    def _forget(self, kept: dict[str, object]) -> None:
        self._following.forget(kept)
        if isinstance(peer := kept.get(_PEER), str):
            self._gone(peer)

    def status(self) -> dict[str, Any]:
        """Shards and rows that are here."""
        leads = follows = 0
        rows = dict.fromkeys(self._layout.tables, 0)
        for slot in self._slots:
            with slot.condition:
                leads += slot.leads
                follows += slot.follows
                if slot.leads and slot.shard is not None:
                    for name, part in slot.shard.parts.items():
                        rows[name] += len(part)
        return {"name": self.name, "leads": leads, "follows": follows, "rows": rows}
