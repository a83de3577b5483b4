"""How ranks that have a store in common get connected."""

import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

from oarlock.fleet_ext.transport import listener as listening
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.errors import PeerLost, Refused, TransportError
from oarlock.fleet_ext.transport.listener import Listener
from oarlock.fleet_ext.transport.mesh import Mesh

CONNECT_S = 60.0


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
        TransportError: ranks are missing, which the message names.
    """
    if not 0 <= rank < size:
        raise ValueError(f"rank must be between 0 and {size - 1}, not {rank}")
    if sockets < 1:
        raise ValueError(f"sockets must be at least 1, not {sockets}")
    until = time.monotonic() + timeout
    listener.forget_before(epoch)
    host, port = listener.address
    store.set(_key(epoch, rank), f"{host} {port}".encode())
    others = [peer for peer in range(size) if peer != rank]
    addresses = _addresses(store, epoch, others, until)
    outgoing: dict[int, list[socket.socket]] = {}
    errors: dict[int, str] = {}

    def call(peer: int) -> None:
        try:
            outgoing[peer] = [
                listening.call(addresses[peer], job=listener.job, token=token, tls=tls, epoch=epoch, rank=rank,
                               index=index, until=until)
                for index in range(sockets)
            ]  # fmt: skip
        except (Refused, TimeoutError, OSError) as error:
            errors[peer] = str(error)

    calls = [threading.Thread(target=call, args=(peer,), daemon=True) for peer in others]
    for one in calls:
        one.start()
    incoming = {peer: listener.take(epoch, peer, sockets, until) for peer in others}
    for one in calls:
        one.join(max(0.1, until + 1.0 - time.monotonic()))
    missing = sorted(
        {peer for peer, found in incoming.items() if found is None}
        | (set(others) - outgoing.keys())
    )
    if missing:
        for found in [*incoming.values(), *outgoing.values()]:
            for connection in found or ():
                connection.close()
        why = "; ".join(f"{peer}: {errors.get(peer, 'it did not call')}" for peer in missing)
        raise TransportError(
            f"ranks {missing} of epoch {epoch} could not be connected in {timeout:g} s ({why})"
        )
    mesh = Mesh(rank, size, lost=lost)
    mesh.attach(
        outgoing, {peer: found or [] for peer, found in incoming.items()}, f"{listener.job}.{epoch}"
    )
    return mesh


def _key(epoch: int, rank: int) -> str:
    return f"mesh/{epoch}/{rank}"


def _addresses(
    store: KeyValues, epoch: int, others: list[int], until: float
) -> dict[int, tuple[str, int]]:
    keys = {peer: _key(epoch, peer) for peer in others}
    try:
        found = store.wait(list(keys.values()), max(0.0, until - time.monotonic()))
    except TimeoutError as error:
        raise TransportError(f"not all ranks of epoch {epoch} came: {error}") from error
    addresses = {}
    for peer, key in keys.items():
        host, port = found[key].decode().split()
        addresses[peer] = (host, int(port))
    return addresses
