"""What a group of ranks can do together."""

import queue
import threading
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from weakref import WeakSet

import numpy as np

from oarlock.fleet_ext.transport import arguments, collectives, objects
from oarlock.fleet_ext.transport.arrays import as_bytes, view_of
from oarlock.fleet_ext.transport.errors import Aborted, Disagreement, TimedOut, TransportError
from oarlock.fleet_ext.transport.mesh import Mesh
from oarlock.fleet_ext.transport.work import Work

TIMEOUT_S = 60.0  #: for an operation
_ANSWER_S = 0.5  #: in which a rank that lives answers
_STEP_BITS = 20

T = TypeVar("T")
P = ParamSpec("P")


class Group(ABC):
    """Ranks that exchange arrays, counted from 0 to `size` - 1.

    All ranks call the same operations in the same order, with arrays of the same shape and type. An operation begins at
    once and goes on in the background: `group.all_reduce(x)` returns `Work`, and `.wait()` its result. Until then the
    arrays belong to the operation. Arrays are NumPy's or Paddle tensors on the CPU, contiguous, and are not copied; what
    is returned is NumPy's. When an operation fails, the group is broken on all ranks: make a new one.

    Raises:
        ValueError: of an argument; nothing has happened then.
        TransportError: from `Work.wait`; `PeerLost`, `TimedOut` and `Aborted` tell more.
    """

    rank: int
    size: int
    name: str
    lanes: int = 1  #: subgroups of all ranks that are worth having, to do several things at once

    @abstractmethod
    def all_reduce(self, array: Any, op: str = "sum", *, timeout: float | None = None) -> Work:
        """The reduction of all ranks' arrays, in place: sum, mean, max, min or prod. The same bits on all ranks."""

    @abstractmethod
    def reduce_scatter(
        self, array: Any, op: str = "sum", *, timeout: float | None = None
    ) -> Work[np.ndarray]:
        """Row `rank` of the reduction of arrays [size, ...]."""

    @abstractmethod
    def all_gather(self, array: Any, *, timeout: float | None = None) -> Work[np.ndarray]:
        """All ranks' arrays, [size, ...]."""

    @abstractmethod
    def all_to_all(
        self, parts: Sequence[Any], out: Sequence[Any], *, timeout: float | None = None
    ) -> Work[Sequence[Any]]:
        """Part j goes to rank j; what rank i sends comes into out[i]. Shapes may differ, and both ends know them."""

    @abstractmethod
    def broadcast(self, array: Any, root: int = 0, *, timeout: float | None = None) -> Work:
        """The root's array, in place."""

    @abstractmethod
    def reduce(
        self, array: Any, op: str = "sum", root: int = 0, *, timeout: float | None = None
    ) -> Work:
        """Like `all_reduce`, in place at the root only."""

    @abstractmethod
    def gather(
        self, array: Any, root: int = 0, *, timeout: float | None = None
    ) -> Work[np.ndarray | None]:
        """Like `all_gather`, at the root only."""

    @abstractmethod
    def scatter(
        self, parts: Any | None, out: Any, root: int = 0, *, timeout: float | None = None
    ) -> Work:
        """Row r of the root's array [size, ...] comes into rank r's `out`."""

    @abstractmethod
    def send(self, array: Any, to: int, tag: int = 0) -> Work:
        """To one rank, of which each `receive` with this tag takes one, in order. Over when the array may be changed."""

    @abstractmethod
    def receive(self, out: Any, source: int, tag: int = 0) -> Work:
        """What `source` sent with this tag."""

    @abstractmethod
    def barrier(self, *, timeout: float | None = None) -> Work[None]:
        """Over when all ranks have come here."""

    @abstractmethod
    def all_gather_object(self, value: Any, *, timeout: float | None = None) -> Work[list[Any]]:
        """All ranks' values: numbers, text, bytes, arrays, lists, tuples, dictionaries."""

    @abstractmethod
    def broadcast_object(
        self, value: Any = None, root: int = 0, *, timeout: float | None = None
    ) -> Work[Any]:
        """The root's value."""

    @abstractmethod
    def subgroup(self, ranks: Sequence[int], name: str) -> "Group | None":
        """A group of some of the ranks, counted in their order; None on the others.

        Args:
            name: which no other group of these ranks has or had.
        """

    @abstractmethod
    def abort(self, reason: str) -> None:
        """Fails all that goes on in this group, on every rank; from any thread."""

    @abstractmethod
    def close(self) -> None:
        """Ends the group after what was begun; later operations fail."""

    def _checked(self, rank: int, argument: str) -> int:
        return arguments.rank_of(rank, self.size, argument)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.abort(f"{type(error).__name__}: {error}")
        self.close()


class MeshGroup(Group):
    """A group whose messages go over a mesh: TCP, or memory that processes of one machine share.

    `abort` ends its subgroups, too.

    Args:
        ranks: of the mesh, in the group's order.
        name: the same on all ranks.
        timeout: seconds for an operation where none is given.
    """

    lanes = 4

    def __init__(
        self, mesh: Mesh, ranks: Sequence[int], name: str, timeout: float = TIMEOUT_S
    ) -> None:
        if mesh.rank not in ranks or len(set(ranks)) != len(ranks):
            raise ValueError(f"ranks must have rank {mesh.rank}, and none twice, not {list(ranks)}")
        self.mesh, self.name, self.timeout = mesh, name, timeout
        self.ranks = tuple(ranks)
        self.rank, self.size = self.ranks.index(mesh.rank), len(ranks)
        self.number = zlib.crc32(f"{name} {self.ranks}".encode()) & 0x7FFFFFFF
        mesh.join(self.number, ranks)
        self._messages: dict[tuple[int, int, int], int] = {}
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # operations are counted and queued in one order
        self._closed = False
        self._subgroups: WeakSet[MeshGroup] = WeakSet()
        self._thread = threading.Thread(target=self._run, name=f"group {name}", daemon=True)
        self._thread.start()

    def all_reduce(self, array: Any, op: str = "sum", *, timeout: float | None = None) -> Work[Any]:
        view = arguments.summand_of(array, op)
        return self._collective(timeout, array, collectives.all_reduce, view, op)

    def reduce_scatter(
        self, array: Any, op: str = "sum", *, timeout: float | None = None
    ) -> Work[np.ndarray]:
        view = arguments.summand_of(arguments.rows_of(array, self.size), op)
        out = np.empty(view.shape[1:], view.dtype)
        return self._collective(timeout, out, collectives.reduce_scatter, view, op, out)

    def all_gather(self, array: Any, *, timeout: float | None = None) -> Work[np.ndarray]:
        view = view_of(array)
        out = np.empty((self.size, *view.shape), view.dtype)
        return self._collective(timeout, out, collectives.all_gather, view, out)

    def all_to_all(
        self, parts: Sequence[Any], out: Sequence[Any], *, timeout: float | None = None
    ) -> Work[Sequence[Any]]:
        sources, targets = arguments.exchanged(parts, out, self.rank, self.size)
        return self._collective(timeout, out, collectives.all_to_all, sources, targets)

    def broadcast(self, array: Any, root: int = 0, *, timeout: float | None = None) -> Work[Any]:
        view, root = view_of(array), self._checked(root, "root")
        return self._collective(timeout, array, collectives.broadcast, view, root)

    def reduce(
        self, array: Any, op: str = "sum", root: int = 0, *, timeout: float | None = None
    ) -> Work[Any]:
        view, root = arguments.summand_of(array, op), self._checked(root, "root")
        return self._collective(timeout, array, collectives.reduce, view, op, root)

    def gather(
        self, array: Any, root: int = 0, *, timeout: float | None = None
    ) -> Work[np.ndarray | None]:
        view, root = view_of(array), self._checked(root, "root")
        out = np.empty((self.size, *view.shape), view.dtype) if self.rank == root else None
        return self._collective(timeout, out, collectives.gather, view, out, root)

    def scatter(
        self, parts: Any | None, out: Any, root: int = 0, *, timeout: float | None = None
    ) -> Work[Any]:
        rows, target = arguments.scattered(parts, out, self.rank, root, self.size)
        return self._collective(timeout, out, collectives.scatter, rows, target, root)

    def barrier(self, *, timeout: float | None = None) -> Work[None]:
        return self._collective(timeout, None, collectives.barrier)

    def all_gather_object(self, value: Any, *, timeout: float | None = None) -> Work[list[Any]]:
        data = np.frombuffer(bytearray(objects.dumps(value)), np.uint8)

        def run(call: "_Call") -> list[Any]:
            sizes = np.zeros((self.size, 1), np.int64)
            collectives.all_gather(call, np.array([data.size]), sizes)
            out = [np.empty(int(size), np.uint8) for size in sizes[:, 0]]
            out[self.rank][:] = data
            works = []
            for other in range(self.size):
                if other != self.rank:
                    works.append(call.receive(as_bytes(out[other]), other, 1))
                    works.append(call.send(as_bytes(data), other, 1))
            call.finish(works)
            return [objects.loads(as_bytes(one)) for one in out]

        return self._begin("all_gather_object", timeout, run)

    def broadcast_object(
        self, value: Any = None, root: int = 0, *, timeout: float | None = None
    ) -> Work[Any]:
        root = self._checked(root, "root")
        data = objects.dumps(value) if self.rank == root else b""

        def run(call: "_Call") -> Any:
            size = np.array([len(data)])
            collectives.broadcast(call, size, root)
            out = np.empty(int(size[0]), np.uint8)
            if self.rank == root:
                out[:] = np.frombuffer(data, np.uint8)
                others = [rank for rank in range(self.size) if rank != root]
                call.finish([call.send(as_bytes(out), other, 1) for other in others])
            else:
                call.finish([call.receive(as_bytes(out), root, 1)])
            return objects.loads(as_bytes(out))

        return self._begin("broadcast_object", timeout, run)

    def send(self, array: Any, to: int, tag: int = 0) -> Work[Any]:
        return self._message("send", array, self._checked(to, "to"), tag)

    def receive(self, out: Any, source: int, tag: int = 0) -> Work[Any]:
        return self._message("receive", out, self._checked(source, "source"), tag)

    def subgroup(self, ranks: Sequence[int], name: str) -> "MeshGroup | None":
        chosen = [self.ranks[self._checked(rank, "ranks")] for rank in ranks]
        if self.mesh.rank not in chosen:
            return None
        made = MeshGroup(self.mesh, chosen, f"{self.name}/{name}", self.timeout)
        self._subgroups.add(made)
        return made

    def abort(self, reason: str) -> None:
        for one in list(self._subgroups):
            one.abort(reason)
        self.mesh.break_group(self.number, Aborted(f"aborted: {reason}"), tell=True)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self.mesh.leave(self.number)

    def _collective(
        self,
        timeout: float | None,
        result: T,
        function: Callable[Concatenate["_Call", P], None],
        *arguments: P.args,
        **names: P.kwargs,
    ) -> Work[T]:
        def run(call: "_Call") -> T:
            function(call, *arguments, **names)
            return result

        return self._begin(function.__name__, timeout, run, _doing(arguments))

    def _begin(
        self, what: str, timeout: float | None, run: Callable[["_Call"], T], more: str = ""
    ) -> Work[T]:
        """Queues an operation behind those that were begun before.

        Args:
            more: of what all ranks must agree on.
        """
        work: Work[T] = Work()
        seconds = arguments.seconds_of(timeout, self.timeout)
        with self._lock:
            if self._closed:
                raise ValueError(f"the group {self.name} is closed")
            try:
                number = self.mesh.begin(self.number)
            except TransportError as error:
                work.fail(error)
                return work
            check = zlib.crc32(f"{what} {more}".encode()) & 0xFFFF
            words = f"{what} (number {number} of group {self.name})"
            call = _Call(self, words, number, seconds, check)
            self._queue.put(lambda: _run(call, run, work))
        return work

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            job()

    def _told(self, error: OSError) -> TransportError:
        """What is told where a connection broke: what the group was broken by before, an abort say, or a rank that is lost."""
        lost = self.mesh.lost()
        gone = [lost[rank] for rank in self.ranks if rank in lost]
        return (
            self.mesh.error(self.number)
            or next(iter(gone), None)
            or TransportError(f"a connection broke: {error}")
        )

    def _message(self, what: str, array: Any, peer: int, tag: int) -> Work[Any]:
        """A message between two ranks, which waits for nothing else."""
        if not 0 <= tag < 1 << 20:
            raise ValueError(f"tag must be between 0 and {(1 << 20) - 1}, not {tag}")
        given = view_of(array)
        view, work = as_bytes(given), Work[Any]()
        check = zlib.crc32(given.dtype.name.encode()) & 0xFFFF
        sending = what == "send"
        with self._lock:
            key = (int(sending), peer, tag)
            count = self._messages[key] = self._messages.get(key, 0) + 1
            # Tags of operations have a number above all steps; those of messages have this bit.
            number = 1 << 63 | count << _STEP_BITS | tag
            carry = self.mesh.send if sending else self.mesh.receive
            inner = carry(view, self.ranks[peer], self.number, number, check)

        def over() -> None:
            try:
                inner.wait()
            except OSError as error:
                work.fail(self._told(error))
            except BaseException as error:
                work.fail(error)
            else:
                work.finish(array)

        inner.when_over(over)
        return work


class _Call:
    """One operation that is going on."""

    def __init__(
        self, group: MeshGroup, what: str, number: int, seconds: float, check: int
    ) -> None:
        self._group, self._what, self._number, self._seconds = group, what, number, seconds
        self._check = check
        self.rank, self.size = group.rank, group.size
        self._until = time.monotonic() + seconds

    def send(self, view: memoryview, to: int, step: int) -> Work[None]:
        group = self._group
        return group.mesh.send(view, group.ranks[to], group.number, self._tag(step), self._check)

    def receive(self, view: memoryview, source: int, step: int) -> Work[None]:
        group, tag = self._group, self._tag(step)
        return group.mesh.receive(view, group.ranks[source], group.number, tag, self._check)

    def finish(self, works: Sequence[Work[None]]) -> None:
        for work in works:
            if not work.over_within(self._until - time.monotonic()):
                raise self._late()
            work.wait()

    def _tag(self, step: int) -> int:
        assert step < 1 << _STEP_BITS, "an array of more than 2^19 pieces"
        return self._number << _STEP_BITS | step

    def _late(self) -> TimedOut:
        group = self._group
        progress = group.mesh.progress(group.number, group.ranks, _ANSWER_S)
        others = [rank for rank in group.ranks if rank != group.mesh.rank]
        silent = [group.ranks.index(rank) for rank in others if rank not in progress]
        behind = [
            group.ranks.index(rank)
            for rank in others
            if rank not in progress or progress[rank] < self._number
        ]
        return TimedOut(self._what, self._seconds, behind, silent)

    def check_earlier(self) -> None:
        """
        Raises:
            Disagreement: messages of an earlier operation came that nobody waited for.
        """
        rank = self._group.mesh.unclaimed(self._group.number, self._tag(0))
        if rank is not None:
            raise Disagreement(self._group.ranks.index(rank))

    def told(self, error: OSError) -> TransportError:
        return self._group._told(error)

    def failed(self, error: TransportError) -> None:
        self._group.mesh.break_group(self._group.number, error, tell=True)


def _run(call: _Call, run: Callable[[_Call], T], work: Work[T]) -> None:
    try:
        call.check_earlier()
        found = run(call)
        call.check_earlier()  # again: what ranks sent before this one is here now
    except TransportError as error:
        call.failed(error)
        work.fail(error)
    except OSError as error:
        told = call.told(error)
        call.failed(told)
        work.fail(told)
    except Exception as error:
        call.failed(TransportError(f"{type(error).__name__}: {error}"))
        work.fail(error)
    else:
        work.finish(found)


def _doing(arguments: Sequence[Any]) -> str:
    """What all ranks must agree on of an operation's arguments: op, root and type."""
    flat = [one for given in arguments for one in (given if isinstance(given, list) else [given])]
    types = {one.dtype.name for one in flat if isinstance(one, np.ndarray)}
    return " ".join([*sorted(types), *(str(one) for one in flat if isinstance(one, (str, int)))])
