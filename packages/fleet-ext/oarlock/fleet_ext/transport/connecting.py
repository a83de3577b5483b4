"""How ranks that have a store in common get connected."""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from oarlock.fleet_ext.transport import ring, wire
from oarlock.fleet_ext.transport.errors import NotConnected, PeerLost, Refused
from oarlock.fleet_ext.transport.link import Connection
from oarlock.fleet_ext.transport.listener import Address, Listener, introduce
from oarlock.fleet_ext.transport.mesh import Mesh

CONNECT_S = 60.0
#: How long a caller tries again that is refused, since strangers may fill the door.
_INSISTING_S = 3.0
_LOOK_S = 0.1  #: how often who waits to be called looks whether its own calls have failed


class KeyValues(Protocol):
    """What is needed of a store (`oarlock.fleet_ext.rendezvous`)."""

    def set(self, key: str, value: bytes) -> None: ...

    def wait(self, keys: list[str], timeout: float) -> dict[str, bytes]:
        """Raises TimeoutError if not all are there in time."""


def connect(
    store: KeyValues,
    listener: Listener,
    *,
    rank: int,
    size: int,
    token: str,
    epoch: int = 0,
    tls: wire.Tls | None = None,
    sockets: int = 1,
    timeout: float = CONNECT_S,
    lost: Callable[[PeerLost], None] | None = None,
) -> Mesh:
    """Connects this rank with all others of an epoch.

    Args:
        store: where ranks write their addresses.
        listener: this rank's, which serves later epochs too.
        rank, size: of this rank in the epoch.
        sockets: to each other rank; more than one pays where a single connection does not fill the line.
        timeout: seconds until all are connected.
        lost: called when a rank is lost later.

    Raises:
        NotConnected: ranks are missing.
    """
    if not 0 <= rank < size:
        raise ValueError(f"rank must be between 0 and {size - 1}, not {rank}")
    if sockets < 1:
        raise ValueError(f"sockets must be at least 1, not {sockets}")
    until = time.monotonic() + timeout
    listener.forget_before(epoch)
    store.set(_key(epoch, rank), listener.address.pack())
    others = [peer for peer in range(size) if peer != rank]
    addresses = _addresses(store, epoch, others, until)
    caller = _Caller(listener.job, token, tls, listener.address, epoch, rank, until)
    outgoing: dict[int, list[Connection]] = {}
    errors: dict[int, str] = {}

    def call(peer: int) -> None:
        try:
            outgoing[peer] = [caller.call(addresses[peer], index) for index in range(sockets)]
        except (Refused, TimeoutError, OSError) as error:
            errors[peer] = str(error)

    calls = [threading.Thread(target=call, args=(peer,), daemon=True) for peer in others]
    for one in calls:
        one.start()
    incoming: dict[int, list[Connection] | None] = dict.fromkeys(others)
    for peer in others:
        while incoming[peer] is None and not errors and time.monotonic() < until:
            incoming[peer] = listener.take(
                epoch, peer, sockets, min(until, time.monotonic() + _LOOK_S)
            )
    for one in calls:
        one.join(0.1 if errors else max(0.1, until + 1.0 - time.monotonic()))
    came = {peer: found for peer, found in incoming.items() if found is not None}
    missing = [peer for peer in others if peer not in came or peer not in outgoing]
    if missing:
        for connection in (one for found in (*came.values(), *outgoing.values()) for one in found):
            connection.close()
        why = "; ".join(f"{peer}: {errors.get(peer, 'it did not call')}" for peer in missing)
        raise NotConnected(
            f"ranks {missing} of epoch {epoch} could not be connected in {timeout:g} s ({why})",
            missing,
        )
    mesh = Mesh(rank, size, lost=lost)
    mesh.attach(outgoing, came, f"{listener.job}.{epoch}")
    return mesh


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who calls, and what is said."""

    job: str
    token: str
    tls: wire.Tls | None
    own: Address
    epoch: int
    rank: int
    until: float

    def call(self, address: Address, index: int) -> Connection:
        """Connects to a listener, trying again while nobody listens.

        Raises:
            Refused: it listens, and does not want this connection.
            TimeoutError: nobody listens there.
        """
        local = bool(self.own.path and address.path) and self.own.machine == address.machine
        connection = self._greeted(address, local)
        file = ring.new_file() if local else None
        introduce(connection, epoch=self.epoch, rank=self.rank, index=index, ring=file)
        return Connection(connection, ring.Ring(file) if file is not None else None)

    def _greeted(self, address: Address, local: bool) -> socket.socket:
        insisting = None
        while True:
            left = self.until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"nobody listens at {address.host}:{address.port}")
            try:
                connection = _connected(address, local, min(left, wire.HANDSHAKE_S))
            except OSError:
                time.sleep(0.02)
                continue
            try:
                return wire.greet(connection, self.token, self.job, None if local else self.tls)
            except Refused:
                insisting = insisting or time.monotonic() + _INSISTING_S
                if time.monotonic() > min(insisting, self.until):
                    raise
                time.sleep(0.1)


def _connected(address: Address, local: bool, timeout: float) -> socket.socket:
    if not local:
        return socket.create_connection((address.host, address.port), timeout=timeout)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(f"\0{address.path}")
    except OSError:
        connection.close()
        raise
    return connection


def _key(epoch: int, rank: int) -> str:
    return f"mesh/{epoch}/{rank}"


def _addresses(store: KeyValues, epoch: int, others: list[int], until: float) -> dict[int, Address]:
    keys = {peer: _key(epoch, peer) for peer in others}
    try:
        found = store.wait(list(keys.values()), max(0.0, until - time.monotonic()))
    except TimeoutError as error:
        missing = [peer for peer, key in keys.items() if not _there(store, key)]
        raise NotConnected(f"not all ranks of epoch {epoch} came: {error}", missing) from error
    return {peer: Address.unpack(found[key]) for peer, key in keys.items()}


def _there(store: KeyValues, key: str) -> bool:
    try:
        return bool(store.wait([key], 0.0))
    except TimeoutError:
        return False
