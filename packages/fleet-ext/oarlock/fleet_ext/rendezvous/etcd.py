"""A store in an etcd cluster, of version 3.4 or later, by its HTTP gateway.

Keys of a job are under `<namespace>/k/`, and marks of what was changed (`marks`) under `<namespace>/r/`.
"""

import math
import os.path
import random
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing

import httpx

from oarlock.fleet_ext.rendezvous import store
from oarlock.fleet_ext.rendezvous.errors import LeaseLost, Outdated, Unreachable
from oarlock.fleet_ext.rendezvous.gateway import (
    NOT_FOUND,
    UNAUTHENTICATED,
    Gateway,
    GatewayError,
    Json,
    coded,
    decoded,
)
from oarlock.fleet_ext.rendezvous.leases import Lease
from oarlock.fleet_ext.rendezvous.marks import Marks
from oarlock.fleet_ext.rendezvous.store import Change, Store
from oarlock.fleet_ext.transport import wire

_READS = 100  #: in one transaction, of the 128 that etcd takes
_CATCH_UP_S = 0.25  #: etcd looks for older changes every 0.1 s
_GRACE_S = 3.0  #: for an answer when the time is over
_PAUSES_S = (0.02, 0.5)


class EtcdStore(Store):
    """
    Args:
        endpoints: address of etcd, or of several members, such as "http://10.0.0.1:2379".
        namespace: of the job; others in the same cluster have other names.
        user, password: where the cluster has authentication. Their role must reach keys that begin with the namespace.
        tls: certificates, for addresses that begin with "https".
        timeout: seconds for each call, in which it is repeated while no member can be reached.

    etcd's leases last whole seconds, and no less than 1.5 of its election timeouts (2 s unless it is configured):
    `Lease.seconds` tells. It looks for changes made before a watch began every 0.1 s, so a short watch may take 0.25 s.
    Where a watch ends with no change, its revision stays as it was: a cluster that compacts its history should keep
    it for longer than keys stay the same, or `Outdated` sends the watcher to `read` though it missed nothing.
    """

    def __init__(
        self, endpoints: str | Sequence[str], *, namespace: str, user: str | None = None,
        password: str | None = None, tls: wire.Tls | None = None, timeout: float = 10.0,
    ) -> None:  # fmt: skip
        endpoints = [endpoints] if isinstance(endpoints, str) else list(endpoints)
        for endpoint in endpoints or [""]:
            if not endpoint.startswith(("http://", "https://")):
                raise ValueError(f"endpoints must be like 'http://10.0.0.1:2379', not {endpoint!r}")
        if not namespace or "/" in namespace:
            raise ValueError(f"namespace must be a name without '/', not {namespace!r}")
        if (user is None) != (password is None):
            raise ValueError("user and password go together")
        self._gateway = Gateway(endpoints, user, password, tls)
        super().__init__(f"{self._gateway.where}, namespace {namespace}", timeout)
        self._prefix = f"{namespace}/k/"
        self._marks = Marks(self._gateway, f"{namespace}/r/")
        self._adding = threading.Lock()

    def get(self, key: str) -> bytes | None:
        return self._find(store.check_key(key), self._until())[0]

    def read(self, prefix: str) -> tuple[int, dict[str, bytes]]:
        reply = self._post("kv/range", self._range(store.check_prefix(prefix)))
        found = {self._name(one["key"]): decoded(one.get("value", "")) for one in reply.get("kvs", ())}  # fmt: skip
        return int(reply["header"]["revision"]), found

    def keys(self, prefix: str) -> list[str]:
        asked = {**self._range(store.check_prefix(prefix)), "keys_only": True}
        return [self._name(one["key"]) for one in self._post("kv/range", asked).get("kvs", ())]

    def set(self, key: str, value: bytes, *, lease: Lease | None = None) -> None:
        put = self._put(key, value, lease)
        self._marks.change([], put, lease, self._until())

    def add(self, key: str, amount: int) -> int:
        store.check_key(key)
        store.check_amount(amount)
        until = self._until()
        # Threads of one process need not get into each other's way.
        if not self._adding.acquire(timeout=self.timeout):
            raise Unreachable(
                f"{self.where}: others add to {key!r} all the time; nothing was added"
            )
        try:
            return self._add(key, amount, until)
        finally:
            self._adding.release()

    def compare_set(
        self, key: str, expected: bytes | None, value: bytes, *, lease: Lease | None = None
    ) -> bool:
        put = self._put(key, value, lease)
        name = self._key(key)
        if expected is None:
            same = {"key": name, "target": "VERSION", "version": "0"}
        else:
            store.check_value(expected, "expected")
            same = {"key": name, "target": "VALUE", "value": coded(expected)}
        return self._marks.change([same], put, lease, self._until())

    def delete(self, key: str) -> bool:
        name = self._key(store.check_key(key))
        there = {"key": name, "target": "VERSION", "result": "GREATER", "version": "0"}
        return self._marks.change(
            [there], {"request_delete_range": {"key": name}}, None, self._until()
        )

    def wait(self, keys: Iterable[str], timeout: float) -> dict[str, bytes]:
        wanted = sorted({store.check_key(key) for key in keys})
        until = time.monotonic() + store.check_wait(timeout)
        prefix = os.path.commonprefix(wanted)
        while True:
            begun = time.monotonic()
            revision, found = self._read_all(wanted, max(until, begun + min(self.timeout, _GRACE_S)))  # fmt: skip
            if len(found) == len(wanted):
                return found
            try:
                with closing(self._batches(prefix, revision, until)) as batches:
                    for changes in batches:
                        for change in changes:
                            found.pop(change.key, None)
                            if change.value is not None and change.key in wanted:
                                found[change.key] = change.value
                        if len(found) == len(wanted):
                            return found
                raise store.missing_keys(set(wanted) - found.keys(), timeout, self.where)
            except Outdated:
                continue  # a compaction came between

    def watch(self, prefix: str, since: int, timeout: float) -> tuple[int, list[Change]]:
        store.check_prefix(prefix)
        store.check_since(since)
        if store.check_wait(timeout) < _CATCH_UP_S and self._revision() != since:
            timeout = _CATCH_UP_S
        with closing(self._batches(prefix, since, time.monotonic() + timeout)) as batches:
            for changes in batches:
                return changes[-1].revision, changes
        return since, []

    def grant(self, seconds: float) -> tuple[int, float]:
        reply = self._post("lease/grant", {"TTL": str(math.ceil(seconds)), "ID": "0"})
        return int(reply["ID"]), float(reply["TTL"])

    def keep(self, lease: int, timeout: float) -> None:
        until = time.monotonic() + min(timeout, self.timeout)
        reply = self._gateway.post("lease/keepalive", {"ID": str(lease)}, until)
        if int(reply["result"].get("TTL", 0)) <= 0:
            raise LeaseLost(f"{self.where}: lease {lease} has expired")

    def release(self, lease: int) -> None:
        try:
            self._post("lease/revoke", {"ID": str(lease)})
        except GatewayError as error:
            if error.code != NOT_FOUND:
                raise

    def close(self) -> None:
        self._gateway.close()

    def _until(self) -> float:
        return time.monotonic() + self.timeout

    def _post(self, path: str, body: Json) -> Json:
        return self._gateway.post(path, body, self._until())

    def _key(self, key: str) -> str:
        return coded(self._prefix + key)

    def _name(self, key: str) -> str:
        return decoded(key).decode()[len(self._prefix) :]

    def _range(self, prefix: str) -> Json:
        begin = (self._prefix + prefix).encode()
        return {"key": coded(begin), "range_end": coded(begin[:-1] + bytes([begin[-1] + 1]))}

    def _put(self, key: str, value: bytes, lease: Lease | None) -> Json:
        name = self._key(store.check_key(key))
        number = "0" if lease is None else str(lease.id)
        return {"request_put": {"key": name, "value": coded(store.check_value(value)), "lease": number}}  # fmt: skip

    def _revision(self) -> int:
        asked = {"key": self._key("-"), "count_only": True}
        return int(self._post("kv/range", asked)["header"]["revision"])

    def _find(self, key: str, until: float) -> tuple[bytes | None, str]:
        """A key's value and the revision of its last change, "0" where there is none."""
        found = self._gateway.post("kv/range", {"key": self._key(key)}, until).get("kvs")
        if not found:
            return None, "0"
        return decoded(found[0].get("value", "")), found[0]["mod_revision"]

    def _read_all(self, keys: list[str], until: float) -> tuple[int, dict[str, bytes]]:
        """Those of the keys that are there, at one moment."""
        found, revision = {}, "0"
        for begin in range(0, len(keys), _READS):
            reads = [
                {"request_range": {"key": self._key(key), "revision": revision}}
                for key in keys[begin : begin + _READS]
            ]
            reply = self._gateway.post("kv/txn", {"success": reads}, until)
            if revision == "0":
                revision = reply["header"]["revision"]
            for one in reply["responses"]:
                for pair in one["response_range"].get("kvs", ()):
                    found[self._name(pair["key"])] = decoded(pair.get("value", ""))
        return int(revision), found

    def _add(self, key: str, amount: int, until: float) -> int:
        pause = 0.001
        while True:
            value, revision = self._find(key, until)
            total = store.counted(key, value, amount)
            same = {"key": self._key(key), "target": "MOD", "mod_revision": revision}
            if self._marks.change([same], self._put(key, str(total).encode(), None), None, until):
                return total
            if time.monotonic() + pause >= until:
                raise Unreachable(
                    f"{self.where}: others change {key!r} all the time; nothing was added"
                )
            time.sleep(pause * random.random())
            pause = min(2 * pause, 0.01)

    def _batches(
        self, prefix: str, since: int, until: float
    ) -> Generator[list[Change], None, None]:
        """Changes as they come, until the time is over.

        Raises:
            Unreachable: etcd was not there at the end.
            Outdated: changes are no longer known.
        """
        pause = _PAUSES_S[0]
        failure: Exception | None = None
        while time.monotonic() < until:
            create = {**self._range(prefix), "start_revision": str(since + 1)}
            messages = self._gateway.stream("watch", {"create_request": create}, until)
            try:
                with closing(messages):
                    for message in messages:
                        failure, pause = None, _PAUSES_S[0]
                        self._check_watch(message, since)
                        changes = [self._changed(event) for event in message.get("events", ())]
                        if changes:
                            since = changes[-1].revision
                            yield changes
                continue
            except httpx.TransportError as error:
                failure = error
            except GatewayError as error:
                if not self._gateway.may_pass(error):
                    raise
                failure = error
            self._gateway.check_open(failure)
            self._gateway.turn()
            time.sleep(min(pause, max(0.0, until - time.monotonic())))
            pause = min(2 * pause, _PAUSES_S[1])
        if failure is not None:
            raise Unreachable(f"{self.where} could not be watched: {failure}") from failure

    def _check_watch(self, message: Json, since: int) -> None:
        if message.get("canceled"):
            oldest = message.get("compact_revision")
            if oldest is not None:
                raise Outdated(f"{self.where}: changes are known since revision {oldest}, not {since}")  # fmt: skip
            reason = message.get("cancel_reason", "the watch was ended")
            raise GatewayError(
                f"{self.where}: {reason}", UNAUTHENTICATED if "token" in reason else 2
            )
        # A member may be behind the others: only a read that all agree on tells.
        if message.get("created") and int(message["header"]["revision"]) < since:
            revision = self._revision()
            if revision < since:
                raise Outdated(f"{self.where}: revision {since} has not been: etcd lost its keys, and is at {revision}")  # fmt: skip

    def _changed(self, event: Json) -> Change:
        pair = event["kv"]
        value = None if event.get("type") == "DELETE" else decoded(pair.get("value", ""))
        return Change(self._name(pair["key"]), value, int(pair["mod_revision"]))
