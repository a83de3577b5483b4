"""Processes that compute one model together, on one machine or on several: sums of their parts.

Each rank has a part of every weight. What a part of a product gives is added up over all ranks, in their order, so
that all of them go on with the same bits.

- ``Ranks.shared``: processes of one machine. Parts stand in a file without a name (``memfd``) that all of them map; who
  waits sleeps after some microseconds.
- ``Ranks.tcp``: a connection between each two ranks. Sums go in pieces, of which some travel while the next is
  computed; a decoder computes one half of a large batch while the sums of the other travel.
- **A rank that is gone** is a ``ConnectionError`` at every other one, at once where its process has ended and after
  ``timeout_s`` where it is silent; so is every later call. Nobody waits for ever.

>>> file = shared_file(ranks=2)                             # in one process, and handed to the other
>>> ranks = Ranks.shared(file, rank=0, ranks=2)
>>> ranks.sum(part, out)                                    # in both

Source: Shoeybi et al., Megatron-LM, 1909.08053.
"""

import ctypes
import os
import socket
import weakref
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from oarlock.native import _library

SLOT_BYTES = 1 << 20  #: of a rank's part in one exchange; larger ones go in pieces
TIMEOUT_S = 60.0  #: for an answer
_MOST_RANKS = 64


def shared_bytes(ranks: int, slot_bytes: int = SLOT_BYTES) -> int:
    """Bytes of the file that ranks of one machine share."""
    size = _library.load().functions.oarlock_ranks_shared_bytes
    size.restype = ctypes.c_int64
    return size(ctypes.c_int32(ranks), ctypes.c_int64(slot_bytes))


def shared_file(ranks: int, slot_bytes: int = SLOT_BYTES) -> int:
    """A file in memory for ranks of one machine; its descriptor, which children do not inherit by themselves."""
    if not 1 <= ranks <= _MOST_RANKS:
        raise ValueError(f"ranks must be between 1 and {_MOST_RANKS}, not {ranks}")
    descriptor = os.memfd_create("oarlock-ranks", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, shared_bytes(ranks, slot_bytes))
    return descriptor


class Ranks:
    """One rank's way to the others. One call at a time; made by ``shared`` or ``tcp``."""

    def __init__(
        self,
        handle: ctypes.c_void_p,
        rank: int,
        ranks: int,
        slot_bytes: int,
        kept: Sequence[socket.socket] = (),
    ) -> None:
        self.handle, self.rank, self.ranks, self.slot_bytes = handle, rank, ranks, slot_bytes
        self._kept = tuple(kept)
        library = _library.load()
        weakref.finalize(self, library.functions.oarlock_ranks_destroy, handle)

    @classmethod
    def shared(
        cls,
        file: int,
        *,
        rank: int,
        ranks: int,
        watched: Mapping[int, socket.socket] | None = None,
        slot_bytes: int = SLOT_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """A rank of one machine.

        Args:
            file: descriptor of ``shared_file``, which may be closed then.
            rank: which this one is.
            ranks: how many there are.
            watched: connections by rank that end with its process. They are kept, and must not be closed before.
            slot_bytes: most of a part, a multiple of 64, the same at all ranks.
            timeout_s: how long a rank may be silent.

        Raises:
            ValueError: an argument is not as above.
        """
        watches = [(other, one.fileno()) for other, one in (watched or {}).items()]
        flat = np.array(watches, np.int32).reshape(-1, 2)
        handle = ctypes.c_void_p()
        _library.load().call(
            "oarlock_ranks_shared",
            *(ctypes.c_int32(one) for one in (file, rank, ranks)),
            ctypes.c_int64(slot_bytes),
            ctypes.c_double(timeout_s),
            ctypes.c_void_p(flat.ctypes.data),
            ctypes.c_int64(len(flat)),
            ctypes.byref(handle),
        )
        return cls(handle, rank, ranks, slot_bytes, list((watched or {}).values()))

    @classmethod
    def tcp(
        cls,
        sockets: Mapping[int, socket.socket],
        *,
        rank: int,
        ranks: int,
        slot_bytes: int = SLOT_BYTES,
        timeout_s: float = TIMEOUT_S,
    ) -> Self:
        """A rank among several machines.

        Args:
            sockets: connections to all other ranks. They are copied, and may be closed then.
            rank, ranks, slot_bytes, timeout_s: as of ``shared``.

        Raises:
            ValueError: an argument is not as above.
        """
        others = set(range(ranks)) - {rank}
        if set(sockets) != others:
            raise ValueError(f"sockets must be of ranks {sorted(others)}, not {sorted(sockets)}")
        files = [-1 if one == rank else sockets[one].fileno() for one in range(ranks)]
        flat = np.array(files, np.int32)
        handle = ctypes.c_void_p()
        _library.load().call(
            "oarlock_ranks_tcp",
            ctypes.c_void_p(flat.ctypes.data),
            ctypes.c_int32(rank),
            ctypes.c_int32(ranks),
            ctypes.c_int64(slot_bytes),
            ctypes.c_double(timeout_s),
            ctypes.byref(handle),
        )
        return cls(handle, rank, ranks, slot_bytes)

    def sum(self, part: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        r"""Add the parts of all ranks to ``out``, :math:`o \mathrel{+}= p_0, o \mathrel{+}= p_1, \dots` in this order.

        Args:
            part: [rows, width] float32, contiguous.
            out: the same shape; changed.

        Raises:
            ValueError: an argument is not as above, or a row is longer than a slot.
            ConnectionError: a rank is gone.
        """
        for name, one in (("part", part), ("out", out)):
            if one.dtype != np.float32 or not one.flags.c_contiguous or one.shape != part.shape:
                raise ValueError(f"{name} must be contiguous float32 of shape {part.shape}")
        if part.ndim != 2:
            raise ValueError(f"part must have two axes, got shape {part.shape}")
        _library.load().call(
            "oarlock_ranks_sum",
            self.handle,
            ctypes.c_void_p(part.ctypes.data),
            *(ctypes.c_int64(size) for size in part.shape),
            ctypes.c_void_p(out.ctypes.data),
        )

    def stats(self) -> dict[str, float]:
        """Exchanges so far, bytes of this rank's parts, and seconds spent on handing over and waiting."""
        found = np.zeros(3, np.int64)
        _library.load().functions.oarlock_ranks_stats(
            self.handle, ctypes.c_void_p(found.ctypes.data)
        )
        exchanges, size, waited = found.tolist()
        return {"exchanges": exchanges, "bytes": size, "waited_s": waited / 1e9}
