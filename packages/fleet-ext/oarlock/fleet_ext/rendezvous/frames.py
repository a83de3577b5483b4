"""What a store's server and its clients agree on.

After the handshake of `transport.wire`, a client sends a request and reads its answer, again and again. Both are values:
four bytes of length, then `objects.dumps`.
"""

import socket
import time
from typing import Any

from oarlock.fleet_ext.rendezvous import store
from oarlock.fleet_ext.rendezvous.errors import LeaseLost, Outdated, StoreError
from oarlock.fleet_ext.transport import objects, wire
from oarlock.fleet_ext.transport.errors import Refused

_LENGTH = 4  #: bytes, little-endian
FRAME_S = 10.0  #: for a whole frame, from its first byte on
LONGEST_POLL_S = 15.0  #: until a request that waits is answered; who waits longer asks again
#: Two values in base64 and what is around them.
REQUEST_BYTES = 2 * (store.VALUE_BYTES * 4 // 3) + (1 << 16)
ANSWER_BYTES = 256 << 20
#: What a client is told of, the most special first.
ERRORS: dict[str, type[Exception]] = {
    "lease lost": LeaseLost, "outdated": Outdated, "store": StoreError, "value": ValueError,
}  # fmt: skip

# A connection that is silent for so many seconds is asked for a sign of life, so often, before it is given up.
_KEEPALIVE = {socket.TCP_KEEPIDLE: 20, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 4}


def handshake_context(job: str) -> str:
    return f"oarlock store of {job}"


def prepare(connection: socket.socket) -> None:
    """Small messages are not held back, and a peer whose machine is gone is noticed."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, number in _KEEPALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, option, number)


def pack(value: Any) -> bytes:
    data = objects.dumps(value)
    return len(data).to_bytes(_LENGTH, "little") + data


def send(connection: socket.socket, packed: bytes, seconds: float) -> None:
    """
    Raises:
        TimeoutError: the other side does not take it.
    """
    connection.settimeout(seconds)
    connection.sendall(packed)


def receive(connection: socket.socket, most: int, until: float | None = None) -> Any:
    """The next value.

    Args:
        most: bytes that are accepted.
        until: on the monotonic clock. Without, it may be long in coming; once begun it has `FRAME_S`.

    Raises:
        EOFError: the connection ended.
        TimeoutError: it was too slow.
        Refused: it is no value, or too long.
    """
    if until is None:
        connection.settimeout(None)
        begin = connection.recv(_LENGTH)
        if not begin:
            raise EOFError("the connection ended")
        until = time.monotonic() + FRAME_S
        head = begin + wire.read_exactly(connection, _LENGTH - len(begin), until)
    else:
        head = wire.read_exactly(connection, _LENGTH, until)
    length = int.from_bytes(head, "little")
    if length > most:
        raise Refused(f"a frame of {length} bytes is above the limit of {most}")
    data = wire.read_exactly(connection, length, until)
    try:
        return objects.loads(data)
    # What is no value fails in many ways: json's, base64's, NumPy's.
    except (ValueError, TypeError, LookupError, SyntaxError, RecursionError, MemoryError) as error:
        raise Refused(f"a frame is no value: {type(error).__name__}: {error}") from error


def end(connection: socket.socket) -> None:
    """Wakes whoever reads from it, in whatever thread."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it is over already
