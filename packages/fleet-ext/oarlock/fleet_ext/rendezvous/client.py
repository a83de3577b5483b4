"""The built-in store's client."""

import random
import secrets
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any, NoReturn

from oarlock.fleet_ext.rendezvous import frames, store
from oarlock.fleet_ext.rendezvous.errors import Closed, StoreError, Unreachable
from oarlock.fleet_ext.rendezvous.leases import Lease
from oarlock.fleet_ext.rendezvous.store import Change, Store
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.errors import Refused

_ATTEMPT_S = 3.0  #: for one answer, before a new connection is tried
REFUSED_S = 2.0  #: of nothing but refusals, before a call gives up
_PAUSES_S = (0.01, 0.3)  #: between tries: the first, and the longest
_IDLE = 16  #: connections that are kept while nobody uses them


class _Slot:
    """A connection, or its place: one request at a time, so the server remembers one answer for each."""

    def __init__(self) -> None:
        self.name, self.number = secrets.token_hex(12), 0
        self.connection: socket.socket | None = None

    def drop(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class TcpStore(Store):
    """A client of a `StoreServer`. It connects when it is first used.

    Args:
        host, port: of the server.
        job, token, tls: as the server has them.
        timeout: seconds for each call, in which it is repeated while the server cannot be reached.
    """

    def __init__(
        self, host: str, port: int, *, job: str, token: str, tls: wire.Tls | None = None,
        timeout: float = 10.0,
    ) -> None:  # fmt: skip
        super().__init__(f"store {host}:{port}", timeout)
        self._address, self._context = (host, port), frames.handshake_context(job)
        self._token, self._tls = token, tls
        self._lock = threading.Lock()
        self._idle: list[_Slot] = []
        self._busy: set[_Slot] = set()
        self._closed = False

    def get(self, key: str) -> bytes | None:
        return self._call({"op": "get", "key": store.check_key(key)})

    def read(self, prefix: str) -> tuple[int, dict[str, bytes]]:
        revision, values = self._call({"op": "read", "prefix": store.check_prefix(prefix)})
        return revision, values

    def keys(self, prefix: str) -> list[str]:
        return self._call({"op": "keys", "prefix": store.check_prefix(prefix)})

    def set(self, key: str, value: bytes, *, lease: Lease | None = None) -> None:
        store.check_key(key)
        store.check_value(value)
        self._change({"op": "set", "key": key, "value": value, "lease": _number(lease)})

    def add(self, key: str, amount: int) -> int:
        store.check_key(key)
        store.check_amount(amount)
        return self._change({"op": "add", "key": key, "amount": amount})

    def compare_set(
        self, key: str, expected: bytes | None, value: bytes, *, lease: Lease | None = None
    ) -> bool:
        store.check_key(key)
        store.check_value(value)
        if expected is not None:
            store.check_value(expected, "expected")
        return self._change({"op": "compare_set", "key": key, "expected": expected, "value": value,
                             "lease": _number(lease)})  # fmt: skip

    def delete(self, key: str) -> bool:
        return self._change({"op": "delete", "key": store.check_key(key)})

    def wait(self, keys: Iterable[str], timeout: float) -> dict[str, bytes]:
        wanted = [store.check_key(key) for key in keys]
        until = time.monotonic() + store.check_wait(timeout)
        while True:
            answer = self._poll({"op": "wait", "keys": wanted}, until)
            if "found" in answer:
                return answer["found"]
            if time.monotonic() >= until:
                raise store.missing_keys(answer["missing"], timeout, self.where)

    def watch(self, prefix: str, since: int, timeout: float) -> tuple[int, list[Change]]:
        store.check_prefix(prefix)
        store.check_since(since)
        until = time.monotonic() + store.check_wait(timeout)
        while True:
            since, found = self._poll({"op": "watch", "prefix": prefix, "since": since}, until)
            if found or time.monotonic() >= until:
                return since, [Change(*one) for one in found]

    def grant(self, seconds: float) -> tuple[int, float]:
        lease, granted = self._change({"op": "grant", "seconds": seconds})
        return lease, granted

    def keep(self, lease: int, timeout: float) -> None:
        self._call({"op": "keep", "lease": lease}, min(timeout, self.timeout))

    def release(self, lease: int) -> None:
        self._change({"op": "release", "lease": lease})

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for slot in self._idle:
                slot.drop()
            self._idle.clear()
            for slot in self._busy:
                if slot.connection is not None:
                    frames.end(slot.connection)

    def _change(self, request: dict[str, Any]) -> Any:
        return self._call(request, change=True)

    def _poll(self, request: dict[str, Any], until: float) -> Any:
        """Asks for something that may be long in coming."""
        timeout = max(0.0, until - time.monotonic()) + min(_ATTEMPT_S, self.timeout)
        return self._call(request, timeout, waits_until=until)

    def _call(
        self, request: dict[str, Any], timeout: float | None = None, *, change: bool = False,
        waits_until: float | None = None,
    ) -> Any:  # fmt: skip
        """
        Args:
            timeout: seconds for all tries.
            change: whether the server must not do it twice.
            waits_until: when the server should answer at the latest.
        """
        timeout = self.timeout if timeout is None else timeout
        until = time.monotonic() + timeout
        slot = self._take()
        if change:
            slot.number += 1
            request = {**request, "slot": slot.name, "number": slot.number}
        try:
            answer = self._exchange_until(slot, request, waits_until, until)
        except (Refused, OSError, EOFError) as error:
            if self._closed:
                raise Closed(f"{self.where} was closed by this process") from error
            raise Unreachable(self._lament(request["op"], timeout, error, change)) from error
        finally:
            self._give_back(slot)
        if "error" in answer:
            self._raise(request, answer)
        return answer["answer"]

    def _exchange_until(
        self, slot: _Slot, request: dict[str, Any], waits_until: float | None, until: float
    ) -> dict[str, Any]:
        """Tries until there is an answer; raises what the last try did."""
        pause, refused_since = _PAUSES_S[0], None
        while True:
            try:
                return self._exchange(slot, request, waits_until, until)
            except (Refused, OSError, EOFError) as error:
                now = time.monotonic()
                refused_since = (refused_since or now) if isinstance(error, Refused) else None
                refused = refused_since is not None and now - refused_since >= REFUSED_S
                if self._closed or refused or now + pause >= until:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _PAUSES_S[1])

    def _exchange(
        self, slot: _Slot, request: dict[str, Any], waits_until: float | None, until: float
    ) -> dict[str, Any]:
        now = time.monotonic()
        end = min(until, now + _ATTEMPT_S)
        try:
            if slot.connection is None:
                slot.connection = self._connect(end)
            if waits_until is not None:
                seconds = min(max(0.0, waits_until - now), frames.LONGEST_POLL_S)
                request = {**request, "seconds": seconds}
                end += seconds
            frames.send(slot.connection, frames.pack(request), max(1e-3, end - time.monotonic()))
            answer = frames.receive(slot.connection, frames.ANSWER_BYTES, end)
            if not isinstance(answer, dict) or not ("answer" in answer or "error" in answer):
                raise Refused("what came is no answer")
        except BaseException:
            slot.drop()  # an answer that comes later would be taken for the next request's
            raise
        return answer

    def _connect(self, until: float) -> socket.socket:
        left = max(1e-3, until - time.monotonic())
        connection = socket.create_connection(self._address, timeout=left)
        # A server that is stopped accepts connections, and says nothing.
        copy = connection.dup()
        timer = threading.Timer(max(1e-3, until - time.monotonic()), frames.end, [copy])
        timer.start()
        try:
            frames.prepare(connection)
            return wire.greet(connection, self._token, self._context, self._tls)
        except (Refused, OSError) as error:
            connection.close()
            if time.monotonic() >= until:
                raise TimeoutError("the server does not answer") from error
            raise
        finally:
            timer.cancel()
            copy.close()

    def _take(self) -> _Slot:
        with self._lock:
            if self._closed:
                raise Closed(f"{self.where} was closed by this process")
            slot = self._idle.pop() if self._idle else _Slot()
            self._busy.add(slot)
            return slot

    def _give_back(self, slot: _Slot) -> None:
        with self._lock:
            self._busy.discard(slot)
            if self._closed or len(self._idle) >= _IDLE:
                slot.drop()
            else:
                self._idle.append(slot)

    def _lament(self, op: str, timeout: float, why: Exception, change: bool) -> str:
        said = f"{self.where} could not be reached for {op!r} within {timeout:g} s: {why}"
        if isinstance(why, Refused):
            said = f"{self.where} refused {op!r}: {why}. Have both sides the same token, job and TLS?"  # fmt: skip
        return said + (". The change may or may not have been made" if change else "")

    def _raise(self, request: dict[str, Any], answer: dict[str, Any]) -> NoReturn:
        kind = frames.ERRORS.get(answer["error"], StoreError)
        where = f" of {request['key']!r}" if "key" in request else ""
        raise kind(f"{self.where}, {request['op']!r}{where}: {answer['message']}")


def _number(lease: Lease | None) -> int | None:
    return None if lease is None else lease.id
