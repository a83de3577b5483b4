"""Groups through Paddle's gloo, for comparison, and where a job must not open sockets of ours.

What gloo cannot do: name the rank that is missing or lost; end an operation that hangs (its thread stays in gloo's
code until gloo gives up, after 30 s); tell that ranks gave arrays of different sizes (the operation hangs, or what comes
is undefined); wait longer than 30 s for a message. Ranks must be processes, and while a group is made, for about 0.3 s
and until all ranks are connected, no other thread of the process runs.
"""

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from paddle.base import core

from oarlock.fleet_ext.transport import arguments, objects, reductions
from oarlock.fleet_ext.transport.arrays import as_bytes, view_of
from oarlock.fleet_ext.transport.connecting import KeyValues
from oarlock.fleet_ext.transport.errors import Aborted
from oarlock.fleet_ext.transport.gloo_context import open_group, tensor_of
from oarlock.fleet_ext.transport.gloo_messages import Messages
from oarlock.fleet_ext.transport.gloo_queue import Operations
from oarlock.fleet_ext.transport.group import TIMEOUT_S, Group
from oarlock.fleet_ext.transport.work import Work

_OPS = {"sum": core.ReduceOp.SUM, "mean": core.ReduceOp.SUM, "max": core.ReduceOp.MAX,
        "min": core.ReduceOp.MIN, "prod": core.ReduceOp.PRODUCT}  # fmt: skip
#: Reduced by gloo itself: Paddle ends the process for types that it does not know.
_NATIVE = tuple(
    map(np.dtype, (np.float32, np.float64, np.int32, np.int64, np.int8, np.uint8, np.bool_))
)
_HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))  #: of which gloo's float16 gives inf
_LARGEST_TAG = (1 << 20) - 1


class GlooGroup(Group):
    """A group of Paddle's gloo, with a thread of its own for what goes on in the background.

    Half precision is reduced in float32. What gloo lacks is made of what it has: `reduce_scatter` moves as much as an
    `all_reduce`, and `all_to_all` is as many scatters as there are ranks. Ranks learn of an abort, and of a failure
    elsewhere, through the store, while they wait for work.

    Args:
        store: where the ranks find each other.
        name: which no other group of this store has or had.
        host: this rank's address.
        timeout: seconds for an operation where none is given, and for all ranks to come.
        messages: make connections for `send` and `receive` too, which takes about 0.6 s for each other rank.

    Raises:
        TransportError: not all ranks came.
    """

    def __init__(
        self, store: KeyValues, *, rank: int, size: int, name: str, host: str = "127.0.0.1",
        timeout: float = TIMEOUT_S, messages: bool = False,
    ) -> None:  # fmt: skip
        self.rank, self.size = arguments.rank_of(rank, size, "rank"), size
        self.name, self.timeout = name, timeout
        self._store, self._host = store, host
        self._gloo = open_group(store, name, rank=rank, size=size, host=host, timeout=timeout)
        self._operations = Operations(store, name, timeout)
        self._messages: Messages | None = None
        if messages:
            self._messages = Messages(store, name, rank=rank, size=size, host=host, timeout=timeout,
                                      failed=self._operations.fail)  # fmt: skip

    def all_reduce(self, array: Any, op: str = "sum", *, timeout: float | None = None) -> Work[Any]:
        view = arguments.summand_of(array, op)

        def run() -> Any:
            self._reduced(view, op, view)
            return array

        return self._operations.begin("all_reduce", timeout, run)

    def reduce_scatter(
        self, array: Any, op: str = "sum", *, timeout: float | None = None
    ) -> Work[np.ndarray]:
        view = arguments.summand_of(arguments.rows_of(array, self.size), op)

        def run() -> np.ndarray:
            whole = np.empty_like(view)
            self._reduced(view, op, whole)
            return whole[self.rank].copy()

        return self._operations.begin("reduce_scatter", timeout, run)

    def all_gather(self, array: Any, *, timeout: float | None = None) -> Work[np.ndarray]:
        view = view_of(array)
        return self._operations.begin("all_gather", timeout, lambda: self._gathered(view))

    def all_to_all(
        self, parts: Sequence[Any], out: Sequence[Any], *, timeout: float | None = None
    ) -> Work[Sequence[Any]]:
        given = arguments.exchanged(parts, out, self.rank, self.size)
        sources, targets = ([as_bytes(one) for one in views] for views in given)

        def run() -> Sequence[Any]:
            longest = np.array([max(map(len, sources))])
            self._reduced(longest, "max", longest)
            rows = np.zeros((self.size, int(longest[0])), np.uint8)
            for row, source in zip(rows, sources):
                row[: len(source)] = source
            row = np.empty_like(rows[0])
            for root, target in enumerate(targets):
                self._scattered(rows, row, root)
                target[:] = row[: len(target)].data
            return out

        return self._operations.begin("all_to_all", timeout, run)

    def broadcast(self, array: Any, root: int = 0, *, timeout: float | None = None) -> Work[Any]:
        view, root = view_of(array), self._checked(root, "root")

        def run() -> Any:
            self._broadcast(view, root)
            return array

        return self._operations.begin("broadcast", timeout, run)

    def reduce(
        self, array: Any, op: str = "sum", root: int = 0, *, timeout: float | None = None
    ) -> Work[Any]:
        view, root = arguments.summand_of(array, op), self._checked(root, "root")

        def run() -> Any:
            # Not gloo's own reduce, which leaves partial sums in the arrays of the other ranks.
            self._reduced(view, op, view if self.rank == root else np.empty_like(view))
            return array

        return self._operations.begin("reduce", timeout, run)

    def gather(
        self, array: Any, root: int = 0, *, timeout: float | None = None
    ) -> Work[np.ndarray | None]:
        view, root = view_of(array), self._checked(root, "root")

        def run() -> np.ndarray | None:
            rows = self._gathered(view)
            return rows if self.rank == root else None

        return self._operations.begin("gather", timeout, run)

    def scatter(
        self, parts: Any | None, out: Any, root: int = 0, *, timeout: float | None = None
    ) -> Work[Any]:
        rows, target = arguments.scattered(parts, out, self.rank, root, self.size)

        def run() -> Any:
            self._scattered(rows, target, root)
            return out

        return self._operations.begin("scatter", timeout, run)

    def send(self, array: Any, to: int, tag: int = 0) -> Work[Any]:
        """Over at once, since a copy is sent; an error shows in later operations."""
        messages = self._own_messages(tag)
        messages.send(view_of(array), self._checked(to, "to"), tag)
        work: Work[Any] = Work()
        work.finish(array)
        return work

    def receive(self, out: Any, source: int, tag: int = 0) -> Work[Any]:
        messages, view = self._own_messages(tag), view_of(out, "out")
        source = self._checked(source, "source")
        work = self._operations.watched("receive", None)
        messages.receive(view, source, tag, work, out)
        return work

    def barrier(self, *, timeout: float | None = None) -> Work[None]:
        here = np.zeros(1, np.uint8)
        return self._operations.begin("barrier", timeout, lambda: self._reduced(here, "max", here))

    def all_gather_object(self, value: Any, *, timeout: float | None = None) -> Work[list[Any]]:
        data = np.frombuffer(objects.dumps(value), np.uint8)

        def run() -> list[Any]:
            sizes = self._gathered(np.array([data.size]))[:, 0]
            padded = np.zeros(int(sizes.max()), np.uint8)
            padded[: data.size] = data
            rows = self._gathered(padded)
            return [objects.loads(row[: int(size)].data) for row, size in zip(rows, sizes)]

        return self._operations.begin("all_gather_object", timeout, run)

    def broadcast_object(
        self, value: Any = None, root: int = 0, *, timeout: float | None = None
    ) -> Work[Any]:
        root = self._checked(root, "root")
        data = objects.dumps(value) if self.rank == root else b""

        def run() -> Any:
            size = np.array([len(data)])
            self._broadcast(size, root)
            out = np.frombuffer(bytearray(data or bytes(int(size[0]))), np.uint8)
            self._broadcast(out, root)
            return objects.loads(out.data)

        return self._operations.begin("broadcast_object", timeout, run)

    def subgroup(self, ranks: Sequence[int], name: str) -> "GlooGroup | None":
        chosen = [self._checked(rank, "ranks") for rank in ranks]
        if self.rank not in chosen:
            return None
        return GlooGroup(
            self._store, rank=chosen.index(self.rank), size=len(chosen), host=self._host,
            name=f"{self.name}/{name}/{'.'.join(map(str, chosen))}", timeout=self.timeout,
            messages=self._messages is not None,
        )  # fmt: skip

    def abort(self, reason: str) -> None:
        self._operations.fail(Aborted(f"aborted: {reason}"))

    def close(self) -> None:
        self._operations.close()
        if self._messages is not None:
            self._messages.close()

    # In the group's thread

    def _reduced(self, view: np.ndarray, op: str, out: np.ndarray) -> None:
        """The reduction, into `out`, which may be the view."""
        if view.dtype in _HALVES:
            buffer = view.astype(np.float32)
        elif view.dtype in _NATIVE:
            buffer = view if out is view else view.copy()
        else:
            rows = self._gathered(view).reshape(self.size, -1)
            reductions.reduce(list(rows), op, out.reshape(-1))
            return
        if view.size:
            self._gloo.all_reduce(tensor_of(buffer.reshape(-1)), _OPS[op], True).wait()
        if op == "mean":
            np.divide(buffer, self.size, out=buffer)
        if buffer is not out:
            out[...] = buffer

    def _gathered(self, view: np.ndarray) -> np.ndarray:
        out = np.empty((self.size, *view.shape), view.dtype)
        if view.size:
            self._gloo.all_gather_into_tensor(_bytes_of(out), _bytes_of(view), True).wait()
        return out

    def _broadcast(self, view: np.ndarray, root: int) -> None:
        if view.size:
            self._gloo.broadcast(_bytes_of(view), root, True).wait()

    def _scattered(self, rows: np.ndarray | None, out: np.ndarray, root: int) -> None:
        """The rows count at the root only."""
        if out.size:
            parts = _bytes_of(out if rows is None else rows)
            self._gloo.scatter_tensor(_bytes_of(out), parts, root, True).wait()

    # Arguments

    def _own_messages(self, tag: int) -> Messages:
        if self._messages is None:
            raise ValueError(f"group {self.name} was made without messages: pass messages=True")
        if not 0 <= tag <= _LARGEST_TAG:
            raise ValueError(f"tag must be between 0 and {_LARGEST_TAG}, not {tag}")
        return self._messages


def _bytes_of(array: np.ndarray) -> Any:
    return tensor_of(array.reshape(-1).view(np.uint8))
