"""Collective operations over messages.

All are direct: every rank exchanges with every other at once. That moves as few bytes as a ring does and waits for two
messages instead of 2(n - 1), which is what counts where a message takes 20 ms; and sums have one order. Large
arrays go in pieces, so that some travel while others are added up.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from oarlock.fleet_ext.transport import reductions
from oarlock.fleet_ext.transport.arrays import as_bytes
from oarlock.fleet_ext.transport.work import Work

PIECE_BYTES = 1 << 20
SMALL_BYTES = (
    1 << 13
)  #: up to here everybody sends everything to everybody: one message's time instead of two


class Call(Protocol):
    """One operation of a group that is going on, with ranks counted in the group."""

    rank: int
    size: int

    def send(self, view: memoryview, to: int, step: int) -> Work[None]: ...

    def receive(self, view: memoryview, source: int, step: int) -> Work[None]: ...

    def finish(self, works: Sequence[Work[None]]) -> None:
        """Waits for all; raises what went wrong."""


def _others(call: Call) -> list[int]:
    """The other ranks, each rank's own order, so that nobody is sent to by all at once."""
    return [(call.rank + step) % call.size for step in range(1, call.size)]


def _slices(count: int, size: int) -> list[slice]:
    """So many parts of a flat array, as equal as can be."""
    ends = [count * part // size for part in range(size + 1)]
    return [slice(begin, end) for begin, end in zip(ends[:-1], ends[1:])]


def _pieces(part: slice, itemsize: int) -> Iterator[slice]:
    step = max(1, PIECE_BYTES // itemsize)
    for begin in range(part.start, part.stop, step):
        yield slice(begin, min(begin + step, part.stop))


def all_reduce(call: Call, array: np.ndarray, op: str) -> None:
    """In place."""
    flat = array.reshape(-1)
    if call.size == 1 or flat.size == 0:
        return
    if flat.nbytes <= SMALL_BYTES:
        parts = np.empty((call.size, flat.size), flat.dtype)
        parts[call.rank] = flat
        _exchange(call, flat, list(parts), step=0)
        reductions.reduce(list(parts), op, flat)
        return
    slices = _slices(flat.size, call.size)
    others = _others(call)
    # Reduced slices come into the array itself: their owner has read what was there before it sends.
    last = []
    for other in others:
        for index, piece in enumerate(_pieces(slices[other], flat.itemsize)):
            last.append(call.receive(as_bytes(flat[piece]), other, 2 * index + 1))
    reduced = _reduce_pieces(call, flat, slices, op, flat)
    for index, piece in reduced:
        last += [call.send(as_bytes(flat[piece]), other, 2 * index + 1) for other in others]
    call.finish(last)


def _reduce_pieces(
    call: Call, flat: np.ndarray, slices: Sequence[slice], op: str, into: np.ndarray
) -> Iterator[tuple[int, slice]]:
    """Sends what others own, and adds up what this rank owns; its number and place, piece by piece."""
    others = _others(call)
    own = slices[call.rank]
    buffers = np.empty((call.size, own.stop - own.start), flat.dtype)
    arriving = []
    for index, piece in enumerate(_pieces(own, flat.itemsize)):
        shifted = slice(piece.start - own.start, piece.stop - own.start)
        arriving.append((index, piece, shifted, [
            call.receive(as_bytes(buffers[other, shifted]), other, 2 * index) for other in others
        ]))  # fmt: skip
    sends = []
    lists = [list(_pieces(slices[other], flat.itemsize)) for other in others]
    for index in range(max((len(one) for one in lists), default=0)):
        for other, pieces in zip(others, lists):
            if index < len(pieces):
                sends.append(call.send(as_bytes(flat[pieces[index]]), other, 2 * index))
    for index, piece, shifted, works in arriving:
        call.finish(works)
        parts = list(buffers[:, shifted])
        # The sum of the first parts is written to the first, which must not be the user's.
        if call.rank == 0:
            parts[0][...] = flat[piece]
        else:
            parts[call.rank] = flat[piece]
        target = into[piece] if into is flat else into[shifted]
        reductions.reduce(parts, op, target)
        yield index, piece
    call.finish(sends)


def reduce_scatter(call: Call, array: np.ndarray, op: str, out: np.ndarray) -> None:
    """Row `rank` of the reduced array; the array stays as it was."""
    flat = array.reshape(-1)
    slices = _slices(flat.size, call.size)  # rows are of one size
    for _ in _reduce_pieces(call, flat, slices, op, out.reshape(-1)):
        pass


def reduce(call: Call, array: np.ndarray, op: str, root: int) -> None:
    """In place at the root; elsewhere the array stays as it was."""
    flat = array.reshape(-1)
    if call.rank != root:
        call.finish([call.send(as_bytes(flat), root, 0)])
        return
    parts = [np.empty_like(flat) for _ in range(call.size)]
    parts[root][...] = flat
    call.finish([call.receive(as_bytes(parts[other]), other, 0) for other in _others(call)])
    reductions.reduce(parts, op, flat)


def all_gather(call: Call, array: np.ndarray, out: np.ndarray) -> None:
    """Each rank's array, as rows."""
    rows = out.reshape(call.size, -1)
    rows[call.rank] = array.reshape(-1)
    _exchange(call, array.reshape(-1), list(rows), step=0)


def _exchange(call: Call, mine: np.ndarray, rows: Sequence[np.ndarray], step: int) -> None:
    """Everybody's array to everybody, in pieces."""
    pieces = list(_pieces(slice(0, mine.size), mine.itemsize))
    works = [
        call.receive(as_bytes(rows[other][piece]), other, step + index)
        for other in _others(call)
        for index, piece in enumerate(pieces)
    ]
    works += [
        call.send(as_bytes(mine[piece]), other, step + index)
        for index, piece in enumerate(pieces)
        for other in _others(call)
    ]
    call.finish(works)


def all_to_all(call: Call, parts: Sequence[np.ndarray], out: Sequence[np.ndarray]) -> None:
    """Part j goes to rank j; sizes may differ, and both ends know them."""
    out[call.rank][...] = parts[call.rank]
    others = _others(call)
    works = [call.receive(as_bytes(out[other]), other, 0) for other in others]
    works += [call.send(as_bytes(parts[other]), other, 0) for other in others]
    call.finish(works)


def broadcast(call: Call, array: np.ndarray, root: int) -> None:
    """In place. Large arrays are scattered, and gathered by all: the root sends each byte but once or twice."""
    flat = array.reshape(-1)
    others = _others(call)
    if call.size == 1:
        return
    if flat.nbytes <= SMALL_BYTES or call.size == 2:
        if call.rank == root:
            call.finish([call.send(as_bytes(flat), other, 0) for other in others])
        else:
            call.finish([call.receive(as_bytes(flat), root, 0)])
        return
    # The root's own slice goes to all of them from the root; every other slice from its owner.
    slices = _slices(flat.size, call.size)
    works = []
    if call.rank == root:
        for other in others:
            for index, piece in enumerate(_pieces(slices[other], flat.itemsize)):
                works.append(call.send(as_bytes(flat[piece]), other, 2 * index))
        for index, piece in enumerate(_pieces(slices[root], flat.itemsize)):
            works += [call.send(as_bytes(flat[piece]), other, 2 * index + 1) for other in others]
        call.finish(works)
        return
    for owner in others:
        for index, piece in enumerate(_pieces(slices[owner], flat.itemsize)):
            works.append(call.receive(as_bytes(flat[piece]), owner, 2 * index + 1))
    own = list(enumerate(_pieces(slices[call.rank], flat.itemsize)))
    coming = [call.receive(as_bytes(flat[piece]), root, 2 * index) for index, piece in own]
    for (index, piece), work in zip(own, coming):
        call.finish([work])
        works += [
            call.send(as_bytes(flat[piece]), other, 2 * index + 1)
            for other in others
            if other != root
        ]
    call.finish(works)


def gather(call: Call, array: np.ndarray, out: np.ndarray | None, root: int) -> None:
    """Each rank's array, as rows, at the root."""
    flat = array.reshape(-1)
    if call.rank != root:
        call.finish([call.send(as_bytes(flat), root, 0)])
        return
    assert out is not None
    rows = out.reshape(call.size, -1)
    rows[root] = flat
    call.finish([
        call.receive(as_bytes(rows[other]), other, 0) for other in _others(call)
    ])  # fmt: skip


def scatter(call: Call, parts: np.ndarray | None, out: np.ndarray, root: int) -> None:
    """Row r of the root's array to rank r."""
    if call.rank != root:
        call.finish([call.receive(as_bytes(out.reshape(-1)), root, 0)])
        return
    assert parts is not None
    rows = parts.reshape(call.size, -1)
    out.reshape(-1)[...] = rows[root]
    call.finish([
        call.send(as_bytes(rows[other]), other, 0) for other in _others(call)
    ])  # fmt: skip


def barrier(call: Call) -> None:
    """Until all ranks are here."""
    all_reduce(call, np.zeros(1, np.uint8), "max")
