"""Memory for weights: on large pages of the system, many weights beside each other.

A product with one row runs through all weights once, and the processor reads ahead to the end of a page only: small
pages cost it a fifth of its speed.
"""

import mmap
import threading
import weakref

import numpy as np
from numpy.typing import NDArray

_LARGE = 2 << 20  #: bytes of a large page
_CHUNK = 32 << 20
_LINE = 64


class _Chunk(np.ndarray):
    """Bytes that weights are cut from; an array that weak references may point to."""


_current: weakref.ReferenceType[_Chunk] | None = None
_used = 0
_lock = threading.Lock()


def take(count: int) -> NDArray[np.uint8]:
    """``count`` bytes at the beginning of a cache line, given back when nothing refers to them."""
    global _current, _used
    with _lock:
        chunk = None if _current is None else _current()
        if chunk is None or _used + count > chunk.nbytes:
            chunk = _chunk(max(count, _CHUNK))
            _current, _used = weakref.ref(chunk), 0
        start = _used
        _used += -(-count // _LINE) * _LINE
        return chunk[start : start + count].view(np.ndarray)


def _chunk(count: int) -> _Chunk:
    whole = -(-count // _LARGE) * _LARGE
    memory = mmap.mmap(-1, whole + _LARGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            memory.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a system without them
            pass
    bytes_ = np.frombuffer(memory, np.uint8)
    start = -bytes_.ctypes.data % _LARGE
    return bytes_[start : start + whole].view(_Chunk)
