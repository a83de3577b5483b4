"""What `paddle.distributed` calls a process group, over a group of ours."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from paddle.base import core

from oarlock.fleet_ext.transport import Group, Work
from oarlock.fleet_ext.transport.arrays import view_of

_OPS = {core.ReduceOp.SUM: "sum", core.ReduceOp.AVG: "mean", core.ReduceOp.MAX: "max",
        core.ReduceOp.MIN: "min", core.ReduceOp.PRODUCT: "prod"}  # fmt: skip
_BOOLEAN = {"sum": "max", "prod": "min"}  #: what Paddle's sum and product of booleans are
_SUM = core.ReduceOp.SUM
_NOW = "_on_calc_stream"


class Task:
    """What `paddle.distributed` waits for."""

    def __init__(self, work: Work[Any]) -> None:
        self._work = work

    def wait(self, timeout: float | None = None) -> bool:
        """
        Raises:
            TransportError: the operation failed.
        """
        self._work.wait(timeout)
        return True

    def synchronize(self) -> None:
        self._work.wait()

    def is_completed(self) -> bool:
        return self._work.done()


class CpuProcessGroup:
    """Takes the place of `core.ProcessGroupGloo`, with its methods as Paddle's Python code calls them.

    Every method but those of a name that ends in `_on_calc_stream` begins an operation and returns a task, whatever
    `sync_op` says: Paddle waits for it where it was asked to.

    Args:
        open_transport: makes the group that carries the operations, given how many times there was one before.
        open_gloo: makes Paddle's own group, for what Paddle's C++ code does with it; called on first use.
    """

    def __init__(
        self, open_transport: Callable[[int], Group], open_gloo: Callable[[], Any]
    ) -> None:
        self.transport = open_transport(0)
        self._open_transport, self._restarts = open_transport, 0
        self._open_gloo, self._gloo = open_gloo, None
        self._begun: list[Work[Any]] = []  # and perhaps not over
        self._coalesced: list[Task] | None = None

    @property
    def gloo(self) -> Any:
        """Paddle's own group of the same ranks, which all of them must ask for."""
        if self._gloo is None:
            self._gloo = self._open_gloo()
        return self._gloo

    def name(self) -> str:
        return "GLOO"

    def rank(self) -> int:
        return self.transport.rank

    def size(self) -> int:
        return self.transport.size

    def __getattr__(self, name: str) -> Any:
        """`all_reduce_on_calc_stream` and the like: begun and waited for."""
        if not name.endswith(_NOW) or name.startswith("_"):
            raise AttributeError(f"a process group of oarlock's has no {name}")
        begin = getattr(self, name.removesuffix(_NOW))

        def now(*arguments: Any) -> Task:
            task = begin(*arguments, sync_op=True)
            if self._coalesced is None:
                task.wait()
            else:
                self._coalesced.append(task)
            return task

        return now

    def all_reduce(self, tensor: Any, op: Any = _SUM, sync_op: bool = True) -> Task:
        return self._task(self.transport.all_reduce(tensor, _op(op, tensor)))

    allreduce = all_reduce

    def reduce(self, tensor: Any, dst: int, op: Any = _SUM, sync_op: bool = True) -> Task:
        return self._task(self.transport.reduce(tensor, _op(op, tensor), dst))

    def broadcast(self, tensor: Any, src: int, sync_op: bool = True) -> Task:
        return self._task(self.transport.broadcast(tensor, src))

    def all_gather(self, out: Any, given: Any, sync_op: bool | None = None) -> Task:
        """Without `sync_op` it is (given, out), as Paddle has it."""
        if sync_op is None:
            out, given = given, out
        parts = self._parts(out)
        return self._then(self.transport.all_gather(given), lambda rows: _fill(parts, rows))

    all_gather_into_tensor = all_gather

    def all_gather_partial(
        self, out: Any, given: Any, num: int, id: int, sync_op: bool = True
    ) -> Task:
        part = _piece(given, num, id).copy()  # `out` may be `given`
        parts = self._parts(out)
        return self._then(self.transport.all_gather(part), lambda rows: _fill(parts, rows))

    def gather(
        self, given: Any, out: Any, dst: int, sync_op: bool = True, use_calc_stream: bool = False
    ) -> Task:
        parts = self._parts(out) if self.rank() == dst else []
        return self._then(self.transport.gather(given, dst), lambda rows: _fill(parts, rows))

    def scatter(self, out: Any, given: Any, src: int, sync_op: bool | None = None) -> Task:
        """Without `sync_op` it is (given, out, src), as Paddle has it."""
        if sync_op is None:
            out, given = given, out
        rows = np.stack(self._parts(given)) if self.rank() == src else None
        return self._task(self.transport.scatter(rows, view_of(out).reshape(-1), src))

    scatter_tensor = scatter

    def reduce_scatter(self, out: Any, given: Any, op: Any = _SUM, sync_op: bool = True) -> Task:
        rows, target = np.stack(self._parts(given)), view_of(out).reshape(-1)
        work = self.transport.reduce_scatter(rows, _op(op, out))
        return self._then(work, lambda row: _fill([target], [row]))

    reduce_scatter_tensor = reduce_scatter

    def all_to_all(self, out: Any, given: Any, sync_op: bool = True) -> Task:
        return self._task(self.transport.all_to_all(self._parts(given), self._parts(out)))

    all_to_all_tensor = all_to_all

    def alltoall(self, given: Any, out: Any) -> Task:
        return self.all_to_all(out, given)

    def all_to_all_single(
        self, out: Any, given: Any, out_sizes: Sequence[int], in_sizes: Sequence[int],
        sync_op: bool = True,
    ) -> Task:  # fmt: skip
        parts, into = self._rows(given, in_sizes), self._rows(out, out_sizes)
        return self._task(self.transport.all_to_all(parts, into))

    def alltoall_single(
        self, given: Any, out: Any, in_sizes: Sequence[int], out_sizes: Sequence[int]
    ) -> Task:
        return self.all_to_all_single(out, given, out_sizes, in_sizes)

    def send(self, tensor: Any, dst: int, sync_op: bool = True) -> Task:
        return self._task(self.transport.send(tensor, dst))

    def recv(self, tensor: Any, src: int, sync_op: bool = True) -> Task:
        return self._task(self.transport.receive(tensor, src))

    def send_partial(self, tensor: Any, dst: int, num: int, id: int, sync_op: bool = True) -> Task:
        return self._task(self.transport.send(_piece(tensor, num, id), dst))

    def recv_partial(self, tensor: Any, src: int, num: int, id: int, sync_op: bool = True) -> Task:
        return self._task(self.transport.receive(_piece(tensor, num, id), src))

    def barrier(self, device_id: int = -1) -> Task:
        return self._task(self.transport.barrier())

    def _start_coalescing(self) -> None:
        """Until `_end_coalescing` all is only begun: ranks in a ring may each receive first."""
        self._coalesced = []

    def _end_coalescing(self, tasks: Sequence[Task] | None = None) -> None:
        begun, self._coalesced = self._coalesced or [], None
        for task in begun:
            task.wait()

    def eager_connect(self) -> None:
        """All ranks are connected from the start."""

    eager_connect_ring_exchange = eager_connect

    def shutdown(self) -> None:
        """Ends the connections of this group, for `paddle.distributed.shutdown_process_group`."""
        self.transport.close()

    def restart(self) -> None:
        """Makes them anew; all ranks must."""
        self._restarts += 1
        self.transport = self._open_transport(self._restarts)

    def settle(self) -> None:
        """Waits for all that was begun.

        Raises:
            TransportError: an operation failed.
        """
        begun, self._begun = self._begun, []
        for work in begun:
            work.wait()

    def _task(self, work: Work[Any]) -> Task:
        self._begun = [one for one in self._begun if not one.done()] + [work]
        return Task(work)

    def _then(self, work: Work[Any], function: Callable[[Any], None]) -> Task:
        """Over when the function of the result is, which runs as soon as there is one."""
        outer: Work[Any] = Work()

        def over() -> None:
            try:
                function(work.wait())
                outer.finish(None)
            except BaseException as error:
                outer.fail(error)

        work.when_over(over)
        return self._task(outer)

    def _parts(self, given: Any) -> list[np.ndarray]:
        """Flat arrays, one for each rank, of a list of tensors, or of one that has them one after the other."""
        if isinstance(given, (list, tuple)):
            if len(given) != self.size():
                raise ValueError(
                    f"the list must have {self.size()} tensors, one for each rank, not {len(given)}"
                )
            return [view_of(one).reshape(-1) for one in given]
        view = view_of(given).reshape(-1)
        if view.size % self.size():
            raise ValueError(
                f"the tensor must be divisible by {self.size()} ranks, not of shape {list(given.shape)}"
            )
        return list(view.reshape(self.size(), -1))

    def _rows(self, given: Any, sizes: Sequence[int]) -> list[np.ndarray]:
        """So many rows of a tensor for each rank; as many for all where none are given."""
        view = view_of(given)
        if not sizes:
            return self._parts(given)
        if len(sizes) != self.size() or sum(sizes) != view.shape[0]:
            raise ValueError(
                f"split sizes must be {self.size()} numbers that add up to {view.shape[0]}, not {list(sizes)}"
            )
        ends = np.cumsum(sizes)
        return [view[end - size : end] for end, size in zip(ends, sizes)]


def _op(op: Any, tensor: Any) -> str:
    name = _OPS[op]
    return _BOOLEAN.get(name, name) if str(tensor.dtype) == "paddle.bool" else name


def _piece(tensor: Any, num: int, index: int) -> np.ndarray:
    """The flat part of that index, of so many."""
    return view_of(tensor).reshape(num, -1)[index]


def _fill(targets: Sequence[np.ndarray], rows: Any) -> None:
    for target, row in zip(targets, rows if rows is not None else ()):
        target[...] = row.reshape(-1)
