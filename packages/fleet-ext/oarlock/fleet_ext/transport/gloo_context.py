"""Paddle's gloo groups, each with a store of its own.

`core.ProcessGroupGloo` of Paddle 3.3 writes the addresses of every group under the same keys ("0", "1", ...) of the
store it is given, so groups that share a store connect to each other's ranks, or hang.
"""

import os
import socket
import zlib
from typing import Any

import numpy as np
from paddle.base import core

from oarlock.fleet_ext.transport.connecting import KeyValues
from oarlock.fleet_ext.transport.errors import TransportError

_TRIES = 5  #: for a free port, which somebody else may take before Paddle does
_OWN_NUMBERS = (
    1 << 24
)  #: and above: Paddle keeps groups by a number, the same on all ranks, and its own are small


def open_group(
    store: KeyValues, name: str, *, rank: int, size: int, host: str, timeout: float,
    number: int | None = None,
) -> Any:  # fmt: skip
    """A new `core.ProcessGroupGloo`.

    Its constructor blocks every thread of the process until all ranks are in it, so ranks wait for each other in the
    store before.

    Args:
        store: where ranks find each other.
        name: which no other group of this store has or had.
        host: this rank's address, where the first rank serves the group's store.
        timeout: seconds for all ranks to come.
        number: by which Paddle's operators find the group; one of the name where there is none.

    Raises:
        TransportError: ranks are missing, or could not be connected.
    """
    if number is None:
        number = _OWN_NUMBERS | zlib.crc32(name.encode()) & 0x7FFFFFFF
    os.environ.setdefault("PADDLE_TRAINER_ID", str(rank))  # Paddle's groups are not made without
    key = f"gloo/{name}"
    try:
        if rank == 0:
            own, port = _serve(host, timeout)
            store.set(key, f"{host} {port}".encode())
        else:
            address, port_text = store.wait([key], timeout)[key].decode().split()
            own = core.TCPStore(address, int(port_text), False, 1, max(1, int(timeout)))
        store.set(f"{key}/{rank}", b"here")
        store.wait([f"{key}/{other}" for other in range(size)], timeout)
        return core.ProcessGroupGloo.create(own, rank, size, number)
    except TimeoutError as error:
        raise TransportError(f"not all ranks of group {name} came: {error}") from error
    except RuntimeError as error:
        raise TransportError(f"gloo could not connect the ranks of group {name}: {error}") from error  # fmt: skip


def tensor_of(array: np.ndarray) -> Any:
    """A Paddle tensor in the memory of a contiguous array."""
    return core.eager.Tensor(
        value=array, place=core.CPUPlace(), persistable=False, zero_copy=True,
        name="", stop_gradient=True,
    )  # fmt: skip


def _serve(host: str, timeout: float) -> tuple[Any, int]:
    for left in reversed(range(_TRIES)):
        with socket.create_server((host, 0)) as free:
            port = free.getsockname()[1]
        try:
            # Of one rank, as far as this constructor knows: with more it would wait until all have connected.
            return core.TCPStore(host, port, True, 1, max(1, int(timeout))), port
        except RuntimeError:
            if not left:
                raise
    raise AssertionError
