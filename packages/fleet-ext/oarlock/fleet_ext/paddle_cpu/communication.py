"""`paddle.distributed`'s groups and its `DataParallel` on CPUs."""

from collections.abc import Callable
from typing import Any

import paddle
from paddle.base import core
from paddle.distributed import collective, parallel
from paddle.distributed.communication import group as group_module

from oarlock.fleet_ext.paddle_cpu.groups import Groups
from oarlock.fleet_ext.paddle_cpu.patching import Patch
from oarlock.fleet_ext.paddle_cpu.process_group import CpuProcessGroup

_NCCL_WITH_MEAN = 21000  #: the version from which Paddle gives a mean to the process group


def patches(groups: Groups) -> list[Patch]:
    return [
        # gloo groups share one store, and overwrite each other's addresses in it; they lack operations, and messages
        # confuse groups of three or more.
        Patch(collective, "_new_process_group_impl", groups.make),
        Patch(parallel, "_new_process_group_impl", groups.make),
        # `DataParallel` gives the group to C++ code, which wants Paddle's own.
        Patch(core, "EagerReducer", _reducer(core.EagerReducer)),
        # `all_reduce` and `reduce_scatter` ask for it on the way to a mean; CPU builds do not have it.
        Patch(core, "nccl_version", lambda: _NCCL_WITH_MEAN),
        # `wait` has kernels for streams of GPUs only: here it waits for what was begun.
        Patch(group_module, "_sync_calc_stream", groups.settle),
        Patch(group_module, "_sync_comm_stream", groups.settle),
        # The pipeline's layers ask for the number of a GPU.
        Patch(parallel.ParallelEnv, "_device_id", 0),
    ]


def _reducer(stock: Any) -> Callable[..., Any]:
    def make(parameters: list[Any], indices: Any, sparse: Any, group: Any, *others: Any) -> Any:
        """
        Raises:
            ValueError: a parameter is of float16, which gloo adds up wrongly (1 + 2 = inf).
        """
        half = [one.name for one in parameters if one.dtype == paddle.float16]
        if half:
            raise ValueError(
                f"parameters must not be float16 in DataParallel on CPUs, as {half[0]} is: use bfloat16, or"
                " oarlock.fleet_ext.overlap"
            )
        own = group.gloo if isinstance(group, CpuProcessGroup) else group
        return stock(parameters, indices, sparse, own, *others)

    return make
