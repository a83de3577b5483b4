"""Messages between leader and followers: a kind, some fields, and arrays, which are not copied on the way.

A frame is a mark, two lengths, a JSON text and the arrays' bytes. Nothing in it is code: a peer that sends nonsense gets
an error.
"""

import json
import math
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEAD = struct.Struct("<4sIQ")
_MARK = b"OLR1"
_PIECE = 1 << 24  # of an array; a time-out is for each
_DTYPES = ("float32", "int32", "uint8")
_MOST_TEXT = 1 << 26
#: Bytes of a frame before the peer has proven who it is.
SMALL = 4096

Frame = tuple[dict[str, Any], list[NDArray[Any]]]


def send(link: socket.socket, fields: dict[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Send a frame.

    Raises:
        OSError: the connection is broken, or the peer takes nothing for the socket's time.
    """
    arrays = [np.ascontiguousarray(one) for one in arrays]
    shapes = [[one.dtype.name, list(one.shape)] for one in arrays]
    text = json.dumps({**fields, "arrays": shapes}, separators=(",", ":")).encode()
    total = sum(one.nbytes for one in arrays)
    small = total < _PIECE
    parts = [_HEAD.pack(_MARK, len(text), total), text]
    if small:
        parts += [one.tobytes() for one in arrays]
    link.sendall(b"".join(parts))
    if small:
        return
    for one in arrays:
        view = memoryview(one.data).cast("B") if one.nbytes else memoryview(b"")
        for begin in range(0, len(view), _PIECE):
            link.sendall(view[begin : begin + _PIECE])


def receive(
    link: socket.socket,
    *,
    most: int | None = None,
    until: float | None = None,
    room: Callable[[int], NDArray[np.uint8]] | None = None,
) -> Frame:
    """The next frame.

    Args:
        link: the connection.
        most: bytes that the frame may have; None for any number.
        until: when all of it must have come, of ``time.monotonic``; None for the socket's time for each piece.
        room: makes the arrays' memory; None for NumPy's own.

    Raises:
        EOFError: the peer has closed the connection.
        ValueError: this is no frame, or too large a one.
        OSError: the connection is broken or silent.
    """
    mark, length, total = _HEAD.unpack(_exactly(link, _HEAD.size, until))
    if mark != _MARK:
        raise ValueError("the peer does not speak as a rank of oarlock-llm does.")
    if length > _MOST_TEXT or (most is not None and length + total > most):
        raise ValueError("the peer sent more than it may.")
    text = _exactly(link, length, until)
    try:
        fields = json.loads(text)
        shapes = [(str(name), tuple(shape)) for name, shape in fields.pop("arrays")]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError("the peer sent a frame that cannot be read.") from error
    known = all(
        name in _DTYPES and all(isinstance(size, int) and size >= 0 for size in shape)
        for name, shape in shapes
    )
    sizes = [np.dtype(name).itemsize * math.prod(shape) for name, shape in shapes] if known else []
    if not known or sum(sizes) != total:
        raise ValueError("the peer sent arrays that do not fit their frame.")
    arrays = []
    for (name, shape), size in zip(shapes, sizes):
        found = np.empty(size, np.uint8) if room is None else room(size)
        _into(link, found.data, until)
        arrays.append(found.view(name).reshape(shape))
    return fields, arrays


def _exactly(link: socket.socket, count: int, until: float | None) -> bytes:
    found = bytearray(count)
    _into(link, memoryview(found), until)
    return bytes(found)


def _into(link: socket.socket, view: memoryview, until: float | None) -> None:
    at = 0
    while at < len(view):
        if until is not None:
            link.settimeout(max(0.001, until - time.monotonic()))
        count = link.recv_into(view[at:])
        if count == 0:
            raise EOFError("the peer has closed the connection")
        at += count
