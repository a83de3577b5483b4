"""What servers and clients send each other: plain names, and arrays as they lie in memory.

After the handshake of `transport.wire` come requests and answers in turn. Each is a header of `wire`, with a checksum, whose
tag says how long the names are; then the names in JSON, with types and shapes of the arrays; then the arrays. All
begin at multiples of eight bytes.
"""

import json
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oarlock.fleet_ext.rendezvous import frames
from oarlock.fleet_ext.transport import wire
from oarlock.fleet_ext.transport.arrays import as_bytes
from oarlock.fleet_ext.transport.errors import Refused

MOST_BYTES = 1 << 30  #: of a message
MESSAGE_S = 30.0  #: for a whole message, from its first byte on
_NAMES_BYTES = 16 << 20
_DTYPES = {one.name: one for one in map(np.dtype, ("int64", "float32"))}
_ALIGN = 8
_JOINED = 1 << 16  #: smaller messages are copied together, and leave in one piece


@dataclass(frozen=True, slots=True)
class Message:
    """
    Args:
        names: plain values by name.
        arrays: int64 or float32.
    """

    names: dict[str, Any]
    arrays: Sequence[np.ndarray] = ()


def context_of(job: str) -> str:
    """What both sides of a handshake must agree on."""
    return f"oarlock tables of {job}"


def send(connection: socket.socket, message: Message, seconds: float) -> None:
    """
    Raises:
        TimeoutError: the other side does not take it.
        OSError: the connection ended.
    """
    arrays = [np.ascontiguousarray(one) for one in message.arrays]
    kinds = [[one.dtype.name, list(one.shape)] for one in arrays]
    names = json.dumps([message.names, kinds], separators=(",", ":")).encode()
    names += b" " * (-len(names) % _ALIGN)
    pieces: list[bytes | memoryview] = []
    for one in arrays:
        if one.nbytes:
            pieces.append(as_bytes(one))
            pieces.append(bytes(-one.nbytes % _ALIGN))
    length = len(names) + sum(map(len, pieces))
    head = wire.Header(kind=wire.DATA, group=0, tag=len(names), length=length).pack() + names
    connection.settimeout(seconds)
    if length < _JOINED:
        connection.sendall(b"".join([head, *pieces]))
        return
    connection.sendall(head)
    for piece in pieces:
        connection.sendall(piece)


def begin(connection: socket.socket, seconds: float | None) -> bytes:
    """The first byte of the next message.

    Args:
        seconds: that it may take; None for ever.

    Raises:
        EOFError: the connection ended.
        TimeoutError: nothing came; it may be asked again.
    """
    connection.settimeout(seconds)
    found = connection.recv(1)
    if not found:
        raise EOFError("the connection ended")
    return found


def receive(connection: socket.socket, seconds: float | None = None, first: bytes = b"") -> Message:
    """The next message.

    Args:
        seconds: for its first byte; without, it may be long in coming. Once begun, it has `MESSAGE_S`.
        first: what `begin` gave.

    Raises:
        EOFError: the connection ended.
        TimeoutError: it was too slow.
        Refused: it is no message.
    """
    first = first or begin(connection, seconds)
    until = time.monotonic() + MESSAGE_S
    packed = first + wire.read_exactly(connection, wire.HEADER_BYTES - 1, until)
    header = wire.Header.unpack(packed)
    if header.kind != wire.DATA or header.length > MOST_BYTES:
        raise Refused(f"a message of {header.length} bytes is above the limit of {MOST_BYTES}")
    if header.tag > min(header.length, _NAMES_BYTES):
        raise Refused("the names of a message are too long")
    memory = np.empty(header.length, np.uint8)
    _fill(connection, memory.data, until)
    try:
        names, kinds = json.loads(memory[: header.tag].tobytes())
        return Message(names, _arrays(memory[header.tag :], kinds))
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise Refused(f"what came is no message: {error}") from error


def greeted(
    address: tuple[str, int], job: str, token: str, tls: wire.Tls | None, seconds: float
) -> socket.socket:
    """A connection to a server.

    Args:
        seconds: for all of it, also where a server that is stopped accepts connections and says nothing.

    Raises:
        OSError: there is nobody.
        Refused: the other side has another job or token, or does not answer in time.
    """
    begun = time.monotonic()
    connection = socket.create_connection(address, timeout=seconds)
    copy = connection.dup()
    timer = threading.Timer(max(1e-3, begun + seconds - time.monotonic()), frames.end, [copy])
    timer.daemon = True
    timer.start()
    try:
        frames.prepare(connection)
        return wire.greet(connection, token, context_of(job), tls)
    except BaseException as error:
        connection.close()
        if isinstance(error, Refused) and time.monotonic() >= begun + seconds:
            raise TimeoutError("the server does not answer") from error
        raise
    finally:
        timer.cancel()
        timer.join()
        copy.close()


def ask(connection: socket.socket, message: Message, seconds: float) -> Message:
    """Sends a request and waits for its answer."""
    send(connection, message, seconds)
    return receive(connection, seconds)


def _fill(connection: socket.socket, view: memoryview, until: float) -> None:
    while len(view):
        connection.settimeout(max(1e-3, until - time.monotonic()))
        count = connection.recv_into(view)
        if count == 0:
            raise EOFError("the connection ended")
        view = view[count:]


def _arrays(memory: np.ndarray, kinds: Any) -> list[np.ndarray]:
    """Views of what was received."""
    found, place = [], 0
    for name, shape in kinds:
        dtype = _DTYPES[name]
        if any(isinstance(one, bool) or not isinstance(one, int) or one < 0 for one in shape):
            raise ValueError(f"{shape} is no shape")
        count = dtype.itemsize
        for one in shape:
            count *= one
        if place + count > len(memory):
            raise ValueError("arrays are longer than the message")
        found.append(memory[place : place + count].view(dtype).reshape(shape))
        place += count + -count % _ALIGN
    if place != len(memory):
        raise ValueError("the message is longer than its arrays")
    return found
