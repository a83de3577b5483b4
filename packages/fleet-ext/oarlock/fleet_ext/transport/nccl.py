"""Groups of GPUs through `paddle.distributed`. Not tested on hardware yet: only its refusals are."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist

from oarlock.fleet_ext.transport import objects
from oarlock.fleet_ext.transport.errors import Aborted
from oarlock.fleet_ext.transport.group import Group
from oarlock.fleet_ext.transport.work import Work

_OPS = {"sum": dist.ReduceOp.SUM, "mean": dist.ReduceOp.AVG, "max": dist.ReduceOp.MAX,
        "min": dist.ReduceOp.MIN, "prod": dist.ReduceOp.PROD}  # fmt: skip


class NcclGroup(Group):
    """Of Paddle tensors on GPUs, each rank's on its own; what is returned is Paddle's too.

    NCCL has no tags, no timeout for an operation (Paddle's is `PADDLE_PG_TIMEOUT`), and no abort that Paddle would pass
    on: `abort` fails later operations of this rank only.

    Args:
        group: of `paddle.distributed.new_group`; None: all ranks, after `init_parallel_env`.

    Raises:
        RuntimeError: Paddle was built without CUDA, or has not been initialized.
    """

    def __init__(self, group: Any = None, name: str = "all") -> None:
        if not paddle.is_compiled_with_cuda():
            raise RuntimeError(
                "Paddle was built without CUDA: install paddlepaddle-gpu, or use MeshGroup, which needs no GPU"
            )
        if not dist.is_initialized():
            raise RuntimeError("call paddle.distributed.init_parallel_env() before")
        self._group = dist.get_group(0) if group is None else group
        self.rank, self.size, self.name = self._group.rank, self._group.nranks, name
        self._aborted: Aborted | None = None

    def all_reduce(self, array: Any, op: str = "sum", *, timeout: float | None = None) -> Work[Any]:
        return self._begin(array, timeout, dist.all_reduce, _gpu(array), _op(op))

    def reduce_scatter(
        self, array: Any, op: str = "sum", *, timeout: float | None = None
    ) -> Work[Any]:
        rows = self._rows_of(array)
        out = paddle.empty(rows.shape[1:], rows.dtype)
        return self._begin(out, timeout, dist.stream.reduce_scatter, out, rows, _op(op))

    def all_gather(self, array: Any, *, timeout: float | None = None) -> Work[Any]:
        out = paddle.empty([self.size, *_gpu(array).shape], array.dtype)
        return self._begin(out, timeout, dist.stream.all_gather, out, array)

    def all_to_all(
        self, parts: Sequence[Any], out: Sequence[Any], *, timeout: float | None = None
    ) -> Work[Sequence[Any]]:
        for name, given in (("parts", parts), ("out", out)):
            if len(given) != self.size:
                raise ValueError(
                    f"{name} must have {self.size} tensors, one for each rank, not {len(given)}"
                )
        sources, targets = [_gpu(one) for one in parts], [_gpu(one) for one in out]
        return self._begin(out, timeout, dist.alltoall, targets, sources)

    def broadcast(self, array: Any, root: int = 0, *, timeout: float | None = None) -> Work[Any]:
        return self._begin(array, timeout, dist.broadcast, _gpu(array), self._global(root))

    def reduce(
        self, array: Any, op: str = "sum", root: int = 0, *, timeout: float | None = None
    ) -> Work[Any]:
        # Not NCCL's reduce, which may write to the tensors of other ranks.
        kept = _gpu(array) if self.rank == root else _gpu(array).clone()
        self._global(root)
        return self._begin(array, timeout, dist.all_reduce, kept, _op(op))

    def gather(self, array: Any, root: int = 0, *, timeout: float | None = None) -> Work[Any]:
        self._global(root)
        work = self.all_gather(array, timeout=timeout)
        return work if self.rank == root else _TaskWork(work, None)

    def scatter(
        self, parts: Any | None, out: Any, root: int = 0, *, timeout: float | None = None
    ) -> Work[Any]:
        if parts is None and self.rank == root:
            raise ValueError("parts must be given at the root")
        rows = list(self._rows_of(parts)) if self.rank == root else None
        return self._begin(out, timeout, dist.scatter, _gpu(out), rows, self._global(root))

    def send(self, array: Any, to: int, tag: int = 0) -> Work[Any]:
        return self._begin(array, None, dist.send, _gpu(array), self._global(to, tag))

    def receive(self, out: Any, source: int, tag: int = 0) -> Work[Any]:
        return self._begin(out, None, dist.recv, _gpu(out), self._global(source, tag))

    def barrier(self, *, timeout: float | None = None) -> Work[None]:
        return self._begin(None, timeout, dist.all_reduce, paddle.zeros([1]), dist.ReduceOp.SUM)

    def all_gather_object(self, value: Any, *, timeout: float | None = None) -> Work[list[Any]]:
        """Over when it returns."""
        data = np.frombuffer(objects.dumps(value), np.uint8)
        sizes = self.all_gather(paddle.to_tensor([data.size]), timeout=timeout).wait().numpy()[:, 0]
        padded = np.zeros(int(sizes.max()), np.uint8)
        padded[: data.size] = data
        rows = self.all_gather(paddle.to_tensor(padded)).wait().numpy()
        return _over([objects.loads(row[: int(size)].data) for row, size in zip(rows, sizes)])

    def broadcast_object(
        self, value: Any = None, root: int = 0, *, timeout: float | None = None
    ) -> Work[Any]:
        """Over when it returns."""
        found = self.all_gather_object(value if self.rank == root else None, timeout=timeout)
        return _over(found.wait()[root])

    def subgroup(self, ranks: Sequence[int], name: str) -> "NcclGroup | None":
        """All ranks of the job must call it, as Paddle wants."""
        group = dist.new_group([self._global(rank) for rank in ranks])
        return NcclGroup(group, f"{self.name}/{name}") if self.rank in ranks else None

    def abort(self, reason: str) -> None:
        self._aborted = Aborted(f"aborted: {reason}")

    def close(self) -> None:
        """Paddle keeps its groups until the process ends."""
        self._aborted = self._aborted or Aborted(f"the group {self.name} is closed")

    def _begin(
        self, result: Any, timeout: float | None, function: Callable[..., Any], *arguments: Any
    ) -> Work[Any]:
        if timeout is not None:
            raise ValueError(
                "timeout must be None: NCCL's is PADDLE_PG_TIMEOUT, for all operations"
            )
        if self._aborted is not None:
            raise self._aborted
        return _TaskWork(function(*arguments, group=self._group, sync_op=False), result)

    def _global(self, rank: int, tag: int = 0) -> int:
        if not 0 <= rank < self.size:
            raise ValueError(f"a rank must be between 0 and {self.size - 1}, not {rank}")
        if tag != 0:
            raise ValueError(f"tag must be 0, not {tag}: NCCL has none")
        return self._group.ranks[rank]

    def _rows_of(self, array: Any) -> Any:
        if not _gpu(array).shape or array.shape[0] != self.size:
            raise ValueError(f"the tensor must have {self.size} rows, not shape {array.shape}")
        return array


class _TaskWork(Work[Any]):
    """A task of Paddle's."""

    __slots__ = ("_task", "_value")

    def __init__(self, task: Any, value: Any) -> None:
        super().__init__()
        self._task, self._value = task, value

    def over_within(self, timeout: float | None) -> bool:
        if not self.done():
            self._task.wait()
            self.finish(self._value)
        return True


def _over(result: Any) -> Work[Any]:
    work: Work[Any] = Work()
    work.finish(result)
    return work


def _op(op: str) -> Any:
    if op not in _OPS:
        raise ValueError(f"op must be one of {', '.join(_OPS)}, not {op!r}")
    return _OPS[op]


def _gpu(tensor: Any) -> Any:
    if not isinstance(tensor, paddle.Tensor) or not tensor.place.is_gpu_place():
        raise ValueError("NCCL moves Paddle tensors on GPUs only: use MeshGroup for others")
    return tensor
