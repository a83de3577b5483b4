"""Keep the memory of large temporaries in the process.

By default glibc maps every large block afresh and unmaps it when freed, so each temporary tensor
is paid for in page faults: an addition of two 16 MB tensors took 8 ms instead of 0.6 ms. With
high thresholds freed blocks stay in the heap and are used again. The price: memory once needed
stays with the process until it ends.
"""

import ctypes
import os

from oarlock.native.paddle.report import Change

NAME = "malloc of large blocks"
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_TRIM_THRESHOLD = (1 << 31) - 1  # bytes; mallopt takes an int
_TOP_PAD = 1 << 28
_MMAP_THRESHOLDS = (1 << 30, 1 << 25)  # glibc before 2.35 accepts no more than 32 MiB
# Blocks are probed at a size glibc would map by default: its own threshold never passes 32 MiB.
_PROBE_BYTES = (1 << 25) + (1 << 20)
_PROBE_BYTES_OLD_GLIBC = (1 << 25) - (1 << 20)
_MAPPED, _HEAP = "mapped afresh each time", "kept in the heap"


def keep_large_blocks() -> Change:
    """Raise glibc's thresholds, so that freed large blocks are used again."""
    if "CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}):
        return Change(NAME, "unknown", "unknown", False, "only glibc has these settings")
    libc, program = ctypes.CDLL("libc.so.6"), ctypes.CDLL(None)
    if _address_of_malloc(libc) != _address_of_malloc(program):
        other = "another allocator"
        return Change(NAME, other, other, False, "malloc is replaced (LD_PRELOAD?): tune that one")
    before = _state(libc, _PROBE_BYTES)
    if before == _HEAP:
        return Change(NAME, before, before, True, "already set")
    for threshold in _MMAP_THRESHOLDS:
        if libc.mallopt(_M_MMAP_THRESHOLD, threshold):
            break
    else:
        return Change(NAME, before, before, False, "mallopt refused the threshold")
    libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
    libc.mallopt(_M_TOP_PAD, _TOP_PAD)
    probe = _PROBE_BYTES if threshold > _PROBE_BYTES else _PROBE_BYTES_OLD_GLIBC
    after = _state(libc, probe)
    if after != _HEAP:
        return Change(NAME, before, after, False, "mallopt had no effect (a limit on the heap?)")
    reason = f"blocks up to {threshold >> 20} MiB; freed memory stays with the process"
    return Change(NAME, before, after, True, reason)


def _address_of_malloc(library: ctypes.CDLL) -> int | None:
    return ctypes.cast(library.malloc, ctypes.c_void_p).value


def _state(libc: ctypes.CDLL, size: int) -> str:
    """Ask for a block and see whether malloc's count of mapped blocks rises."""
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    before = _mapped_blocks(libc)
    block = libc.malloc(size)
    if not block:
        raise MemoryError(f"no {size} bytes free to probe malloc with")
    mapped = _mapped_blocks(libc) > before
    libc.free(block)
    return _MAPPED if mapped else _HEAP


def _mapped_blocks(libc: ctypes.CDLL) -> int:
    new = hasattr(libc, "mallinfo2")  # glibc 2.33
    integer = ctypes.c_size_t if new else ctypes.c_int

    class MallInfo(ctypes.Structure):
        _fields_ = [(f"field{i}", integer) for i in range(10)]

    function = libc.mallinfo2 if new else libc.mallinfo
    function.restype = MallInfo
    return function().field3  # hblks
