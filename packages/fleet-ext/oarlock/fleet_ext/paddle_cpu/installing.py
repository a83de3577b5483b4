"""One call that makes `paddle.distributed` work on machines without GPUs."""

import os
from collections.abc import Callable
from types import TracebackType
from typing import Self

import paddle

from oarlock.fleet_ext.paddle_cpu import communication, operators, sharding
from oarlock.fleet_ext.paddle_cpu.groups import Groups
from oarlock.fleet_ext.paddle_cpu.patching import Patch
from oarlock.fleet_ext.transport import Tls
from oarlock.fleet_ext.transport.group import TIMEOUT_S

_VERSION = "3.3."  #: of Paddle, whose names are replaced
_BACKEND = "PADDLE_DISTRI_BACKEND"

_current: "Installation | None" = None


class Installation:
    """What was replaced in Paddle; a context that undoes it at its end."""

    def __init__(self, groups: Groups, patches: list[Patch]) -> None:
        self._groups = groups
        self._backend = os.environ.get(_BACKEND)
        os.environ[_BACKEND] = "gloo"  # otherwise Paddle looks for GPUs
        self._undo: list[Callable[[], None]] = [one.apply() for one in patches]

    def uninstall(self) -> None:
        """Gives Paddle its own names back and ends the connections: groups made meanwhile are of no more use."""
        global _current
        if _current is not self:
            return
        _current = None
        for undo in reversed(self._undo):
            undo()
        if self._backend is None:
            os.environ.pop(_BACKEND, None)
        else:
            os.environ[_BACKEND] = self._backend
        self._groups.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.uninstall()


def install(
    *, token: str | None = None, host: str | None = None, tls: Tls | None = None,
    timeout: float = TIMEOUT_S,
) -> Installation:  # fmt: skip
    """Makes `paddle.distributed` move its data over our own connections.

    To be called on every rank before `paddle.distributed.init_parallel_env` or `fleet.init`. After that all operations of
    `paddle.distributed` are right on CPUs, of all types and in groups of any size, and `paddle.DataParallel` and fleet's
    tensor, pipeline and sharded modes train. Operations with `sync_op=False` go on in the background, and fail with the
    missing rank's name after `timeout`. The gradients of `DataParallel` alone travel through Paddle's own gloo, which
    chooses its network by `GLOO_SOCKET_IFNAME`, and not beside the backward pass; those of `oarlock.fleet_ext.wrap` do. What
    takes objects (`all_gather_object` and the like) is Paddle's own and unpickles what comes: ranks must trust each other.

    Args:
        token: a secret of the job, the same on all ranks. Without one the first rank makes one and leaves it in Paddle's
            store, where whoever reaches the store can read it.
        host: this rank's address; otherwise that of `PADDLE_CURRENT_ENDPOINT`.
        tls: certificates for encrypted connections.
        timeout: seconds for an operation, and for all ranks to come.

    Raises:
        RuntimeError: Paddle is of another version or a GPU build, has made its groups, or this was called before.
    """
    global _current
    if not paddle.__version__.startswith(_VERSION):
        raise RuntimeError(
            f"this replaces names of Paddle {_VERSION}*, not of {paddle.__version__}"
        )
    if paddle.is_compiled_with_cuda():
        raise RuntimeError("this is for CPU builds of Paddle: with GPUs, use its own NCCL groups")
    if _current is not None:
        raise RuntimeError("oarlock's groups are installed already: uninstall them first")
    if paddle.distributed.is_initialized():
        raise RuntimeError("Paddle has made its groups already: call install() before")
    groups = Groups(token, host, tls, timeout)
    _current = Installation(
        groups, [*communication.patches(groups), *operators.patches(), *sharding.patches()]
    )
    return _current
