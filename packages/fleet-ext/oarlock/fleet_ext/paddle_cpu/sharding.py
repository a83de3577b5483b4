"""Sharded training on CPUs: stages 2 and 3 of `paddle.distributed.sharding.group_sharded_parallel`, and fleet's stage 1
with parameters that are cut anywhere (`split_param`)."""

from typing import Any

import paddle
from paddle.base import core
from paddle.distributed.fleet.meta_optimizers.dygraph_optimizer.dygraph_sharding_optimizer import (
    DygraphShardingOptimizerV2,
)
from paddle.distributed.fleet.meta_parallel.sharding import (
    group_sharded_optimizer_stage2,
    group_sharded_stage3,
)
from paddle.distributed.fleet.meta_parallel.sharding.group_sharded_storage import ParamStorage
from paddle.distributed.fleet.utils import tensor_fusion_helper
from paddle.distributed.sharding import group_sharded

from oarlock.fleet_ext.paddle_cpu.patching import Overlay, Patch


def patches() -> list[Patch]:
    any_device = Overlay(core, is_compiled_with_cuda=lambda: True)
    devices = Overlay(paddle.device, get_all_custom_device_type=lambda: ["cpu"])
    return [
        # It asserts that the device is a GPU or "custom".
        Patch(group_sharded, "paddle", Overlay(paddle, device=devices)),
        # Their constructors assert that Paddle was built for GPUs.
        Patch(group_sharded_optimizer_stage2, "core", any_device),
        Patch(group_sharded_stage3, "core", any_device),
        # It takes the device's number from its name, and "cpu" has none.
        Patch(
            group_sharded_optimizer_stage2, "paddle", Overlay(paddle, get_device=lambda: "cpu:0")
        ),
        # It frees a parameter after `parameter.cpu()`, which on a CPU is the parameter itself.
        Patch(ParamStorage, "add_rank_params", _add_rank_params),
        # Buffers of gradients know GPUs only.
        Patch(tensor_fusion_helper, "alignment", {**tensor_fusion_helper.alignment, "cpu": 256}),
        Patch(tensor_fusion_helper, "get_current_device_type", lambda: "cpu"),
        # After its `clear_grad` the next backward makes new gradients outside the buffer that is sent, so that nothing is
        # learnt after the first step (Paddle's pull request 66472 says so of GPUs too; it was not merged).
        Patch(DygraphShardingOptimizerV2, "clear_grad", _clear_grad),
    ]


_stock_clear_grad = DygraphShardingOptimizerV2.clear_grad


def _clear_grad(self: Any, set_to_zero: bool = True) -> None:
    fused, self.tensor_fusion = self.tensor_fusion, True  # its way to write zeros into gradients
    try:
        _stock_clear_grad(self, set_to_zero)
    finally:
        self.tensor_fusion = fused


_stock_add_rank_params = ParamStorage.add_rank_params


def _add_rank_params(self: Any, parameters: Any, alignments: Any, convert_gpu: bool = True) -> Any:
    return _stock_add_rank_params(self, parameters, alignments, convert_gpu=False)
