"""Answers requests: the state, its journal, those who wait, and leases that expire."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oarlock.fleet_ext.rendezvous import frames, store
from oarlock.fleet_ext.rendezvous.errors import LeaseLost, Outdated, StoreError
from oarlock.fleet_ext.rendezvous.journal import Journal
from oarlock.fleet_ext.rendezvous.state import Record, State

_log = logging.getLogger(__name__)

_PAUSED_S = 0.5  #: that a thread may wake late
_DISK_S = 0.2  #: between tries to let a lease expire while the journal cannot be written


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server takes.

    Args:
        connections: of clients; each thread of a client that waits or watches has one.
        bytes: of all keys and values together.
        leases: at a time.
    """

    connections: int = 1024
    bytes: int = 64 << 20
    leases: int = 16384

    def __post_init__(self) -> None:
        for name in ("connections", "bytes", "leases"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.bytes > frames.ANSWER_BYTES // 2:
            raise ValueError(f"bytes must be at most {frames.ANSWER_BYTES // 2}, not {self.bytes}")


class Stopped(Exception):
    """The server is being closed."""


class _Waiter:
    def __init__(self, lock: threading.Lock, wants: Callable[[str], bool]) -> None:
        self.condition, self.wants = threading.Condition(lock), wants


class Service:
    """A state that many threads use.

    Args:
        journal: path of its file; without, keys live as long as the process.
        durable: wait for the disk on each change.

    Raises:
        JournalError: the journal cannot be used.
    """

    def __init__(self, journal: Path | None, durable: bool, limits: Limits) -> None:
        self._limits = limits
        self._state = State()
        self._lock = threading.Lock()
        self._waiters: set[_Waiter] = set()
        self._stopped = False
        self._journal = None if journal is None else Journal(journal, durable=durable)
        if self._journal is not None:
            for record in self._journal.found:
                self._state.apply(record)
            if not self._journal.found:
                self._journal.append(next(self._state.records()))
            self._journal.found.clear()
        self._leases_changed = threading.Condition(self._lock)
        threading.Thread(target=self._expire_all, name="leases", daemon=True).start()

    def handle(self, request: dict[str, Any]) -> Any:
        """
        Args:
            request: "op", its arguments, and for changes the client's "slot" and the request's "number" in it.

        Raises:
            ValueError, StoreError: what the client is told.
            KeyError, TypeError: it is no request.
            Stopped: the server is being closed.
        """
        operation = _READS.get(request["op"])
        if operation is not None:
            return operation(self, request)
        change = _CHANGES[request["op"]]
        slot, number = request["slot"], request["number"]
        if not isinstance(slot, str) or len(slot) > 64 or not isinstance(number, int):
            raise TypeError("a slot is short text, its numbers are integers")
        with self._lock:
            last = self._state.answers.get(slot)
            if last is not None and number <= last.number:
                if number == last.number:
                    return last.value
                raise StoreError(f"request {number} came after {last.number}")
            record, answer = change(self, request)
            if record is None:
                self._state.answer(slot, number, answer)
            else:
                self._commit({**record, "slot": slot, "number": number, "answer": answer})
            return answer

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for waiter in self._waiters:
                waiter.condition.notify()
            self._leases_changed.notify()
            if self._journal is not None:
                self._journal.close()

    # What only looks.

    def _get(self, request: dict[str, Any]) -> bytes | None:
        with self._lock:
            return self._state.value(store.check_key(request["key"]))

    def _keys(self, request: dict[str, Any]) -> list[str]:
        with self._lock:
            return self._state.under(store.check_prefix(request["prefix"]))

    def _read(self, request: dict[str, Any]) -> list[Any]:
        with self._lock:
            entries = self._state.entries
            keys = self._state.under(store.check_prefix(request["prefix"]))
            return [self._state.revision, {key: entries[key].value for key in keys}]

    def _wait(self, request: dict[str, Any]) -> dict[str, Any]:
        keys = {store.check_key(key) for key in request["keys"]}
        missing: list[str] = []

        def ready() -> bool:
            missing[:] = keys - self._state.entries.keys()
            return not missing

        with self._lock:
            if self._poll(ready, keys.__contains__, request["seconds"]):
                return {"found": {key: self._state.entries[key].value for key in keys}}
            return {"missing": missing}

    def _watch(self, request: dict[str, Any]) -> list[Any]:
        prefix, since = store.check_prefix(request["prefix"]), store.check_since(request["since"])
        with self._lock:
            state = self._state
            if since > state.revision:
                raise Outdated(
                    f"revision {since} has not been: the store lost its keys and is at {state.revision}"
                )
            found: list[store.Change] = []
            seen = since

            def ready() -> bool:
                nonlocal seen
                if state.forgotten > seen:
                    raise Outdated(f"changes are known since revision {state.forgotten}, not {since}")  # fmt: skip
                found[:] = state.changes(prefix, seen)
                seen = state.revision  # what was looked at need not be looked at again
                return bool(found)

            self._poll(ready, lambda key: key.startswith(prefix), request["seconds"])
            return [state.revision, [[one.key, one.value, one.revision] for one in found]]

    def _keep(self, request: dict[str, Any]) -> None:
        with self._lock:
            held = self._held(request["lease"])
            self._state.leases[held].until = time.monotonic() + self._state.leases[held].seconds

    # What changes: each gives the record of it, if any, and the answer.

    def _set(self, request: dict[str, Any]) -> tuple[Record, None]:
        return self._to_set(request["key"], request["value"], request["lease"]), None

    def _add(self, request: dict[str, Any]) -> tuple[Record, int]:
        key = store.check_key(request["key"])
        amount = store.check_amount(request["amount"])
        total = store.counted(key, self._state.value(key), amount)
        return self._to_set(key, str(total).encode(), None), total

    def _compare_set(self, request: dict[str, Any]) -> tuple[Record | None, bool]:
        if self._state.value(store.check_key(request["key"])) != request["expected"]:
            return None, False
        return self._to_set(request["key"], request["value"], request["lease"]), True

    def _delete(self, request: dict[str, Any]) -> tuple[Record | None, bool]:
        if store.check_key(request["key"]) not in self._state.entries:
            return None, False
        return self._state.to_change([(request["key"], None)]), True

    def _grant(self, request: dict[str, Any]) -> tuple[Record, list[Any]]:
        seconds = float(request["seconds"])
        if not store.LEASE_S[0] <= seconds <= store.LEASE_S[1]:
            raise ValueError(f"seconds must not be {seconds}")
        if len(self._state.leases) >= self._limits.leases:
            raise StoreError(f"there are {self._limits.leases} leases, which is the limit")
        record = self._state.to_grant(seconds)
        return record, record["grant"]

    def _release(self, request: dict[str, Any]) -> tuple[Record | None, None]:
        if request["lease"] not in self._state.leases:
            return None, None
        return self._state.to_revoke(request["lease"]), None

    def _to_set(self, key: str, value: bytes, lease: int | None) -> Record:
        store.check_key(key)
        store.check_value(value)
        if lease is not None:
            self._held(lease)
        if self._state.bytes + len(key) + len(value) > self._limits.bytes:
            raise StoreError(f"it is full: its keys and values have {self._state.bytes} bytes")
        return self._state.to_change([(key, value)], lease)

    def _held(self, lease: int) -> int:
        if lease not in self._state.leases:
            raise LeaseLost(f"lease {lease} has expired")
        return lease

    # With the lock held.

    def _commit(self, record: Record) -> None:
        if self._stopped:
            raise Stopped
        if self._journal is not None:
            try:
                if self._journal.grown():
                    self._journal.rewrite(self._state.records())
                self._journal.append(record)
            except OSError as error:
                raise StoreError(f"the journal {self._journal.path} cannot be written: {error}") from error  # fmt: skip
        self._state.apply(record)
        if "grant" in record or "revoke" in record:
            self._leases_changed.notify()
        for key, _ in record.get("changes", ()):
            for waiter in self._waiters:
                if waiter.wants(key):
                    waiter.condition.notify()

    def _poll(self, ready: Callable[[], bool], wants: Callable[[str], bool], seconds: float) -> bool:  # fmt: skip
        """Waits until it is ready; whether it is."""
        until = time.monotonic() + min(max(0.0, float(seconds)), frames.LONGEST_POLL_S)
        if ready():
            return True
        waiter = _Waiter(self._lock, wants)
        self._waiters.add(waiter)
        try:
            while True:
                left = until - time.monotonic()
                if left > 0:
                    waiter.condition.wait(left)
                if self._stopped:
                    raise Stopped
                if ready():
                    return True
                if left <= 0:
                    return False
        finally:
            self._waiters.discard(waiter)

    def _expire_all(self) -> None:
        with self._lock:
            while not self._stopped:
                leases = self._state.leases
                now = time.monotonic()
                wakes = min((held.until for held in leases.values()), default=now + 3600.0)
                wakes = max(now, wakes)
                self._leases_changed.wait(wakes - now)
                paused = time.monotonic() - wakes
                if paused > _PAUSED_S:
                    # This process or its machine was stopped, and could not hear those who kept their leases.
                    _log.warning("paused for at least %.1f s: leases begin anew", paused)
                    for held in leases.values():
                        held.until = time.monotonic() + held.seconds
                self._expire()

    def _expire(self) -> None:
        for lease in self._state.expired(time.monotonic()):
            try:
                self._commit(self._state.to_revoke(lease))
            except StoreError as error:
                _log.error("lease %d should expire: %s", lease, error)
                self._leases_changed.wait(_DISK_S)
                return
            except Stopped:
                return


_READS: dict[str, Callable[[Service, dict[str, Any]], Any]] = {
    "get": Service._get, "keys": Service._keys, "read": Service._read, "wait": Service._wait,
    "watch": Service._watch, "keep": Service._keep,
}  # fmt: skip
_CHANGES: dict[str, Callable[[Service, dict[str, Any]], tuple[Record | None, Any]]] = {
    "set": Service._set, "add": Service._add, "compare_set": Service._compare_set,
    "delete": Service._delete, "grant": Service._grant, "release": Service._release,
}  # fmt: skip
