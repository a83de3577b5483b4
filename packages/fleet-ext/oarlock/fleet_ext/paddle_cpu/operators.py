"""Operators of tensor parallelism that Paddle has no CPU kernels for, in Python.

`paddle.distributed.fleet.layers.mpu.mp_ops` calls them by the number of a group. Tensors are split on their last axis:
[..., width] on one rank, [..., ranks * width] together.
"""

from typing import Any

import paddle
from paddle.autograd import PyLayer
from paddle.base import core
from paddle.distributed.communication.group import get_group
from paddle.distributed.fleet.layers.mpu import mp_ops
from paddle.distributed.fleet.meta_parallel import tensor_parallel
from paddle.distributed.fleet.utils import hybrid_parallel_util

from oarlock.fleet_ext.paddle_cpu.patching import Overlay, Patch
from oarlock.fleet_ext.paddle_cpu.process_group import CpuProcessGroup


def patches() -> list[Patch]:
    operators = Overlay(
        mp_ops._C_ops,
        c_identity=_c_identity,
        c_split=_c_split,
        c_concat=_c_concat,
        all_reduce_=_all_reduce_,
        c_softmax_with_cross_entropy=_c_softmax_with_cross_entropy,
    )
    return [
        # These have no CPU kernels.
        Patch(mp_ops, "_C_ops", operators),
        # It gathers its gradient on the first axis, where it had split the last.
        Patch(mp_ops, "c_split_eager", Split),
        # It asserts that the device is a GPU.
        Patch(hybrid_parallel_util, "broadcast_input_data", _broadcast_input_data),
        Patch(tensor_parallel, "broadcast_input_data", _broadcast_input_data),
    ]


def _c_identity(x: Any, ring_id: int, *_: Any) -> Any:
    return paddle.assign(x)


def _c_split(x: Any, rank: int, nranks: int, ring_id: int, *_: Any) -> Any:
    return _part(x, rank, nranks)


def _c_concat(x: Any, rank: int, nranks: int, ring_id: int, *_: Any) -> Any:
    return _Concat.apply(x, _group(ring_id))


def _all_reduce_(x: Any, ring_id: int, op: int) -> Any:
    _group(ring_id).all_reduce(x).wait()
    return x


def _c_softmax_with_cross_entropy(
    logits: Any, label: Any, ignore_index: int, ring_id: int, rank: int, nranks: int
) -> tuple[Any, Any]:
    """Of logits [..., classes of this rank] and labels [..., 1]: softmax of the same shape, loss [..., 1]."""
    loss, softmax = _CrossEntropy.apply(logits, label, ignore_index, _group(ring_id))
    return softmax, loss


def _broadcast_input_data(hcg: Any, *inputs: Any, **kwargs: Any) -> tuple[Any, Any]:
    """The inputs of the first rank of tensor parallelism."""
    nested = hybrid_parallel_util._broadcast_nested_data
    place = paddle.CPUPlace()
    return (
        nested(hcg, "cpu", place, inputs) if inputs else inputs,
        nested(hcg, "cpu", place, kwargs) if kwargs else kwargs,
    )


class Split(PyLayer):
    """Takes the place of `mp_ops.c_split_eager`, whose gradient is gathered on the first axis, not the last."""

    @staticmethod
    def forward(ctx: Any, x: Any, group: Any, rank: int, nranks: int) -> Any:
        ctx.group = group.process_group
        return _part(x, rank, nranks)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return _gathered(gradient, ctx.group)


class _Concat(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Any, group: CpuProcessGroup) -> Any:
        ctx.group = group
        return _gathered(x, group)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return _part(gradient, ctx.group.rank(), ctx.group.size())


class _CrossEntropy(PyLayer):
    """-log softmax(z)[label], with classes in the order of ranks.

    Each rank knows its own logits: the largest, the sum of exponentials and the label's logit are reduced over ranks.
    The gradient of the loss is softmax - one_hot(label), and 0 where the label is ignored.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Any, label: Any, ignore_index: int, group: CpuProcessGroup
    ) -> tuple[Any, Any]:
        wide = logits.astype("float32") if logits.dtype in _HALVES else logits
        largest = wide.max(axis=-1, keepdim=True)
        group.all_reduce(largest, core.ReduceOp.MAX).wait()
        shifted = wide - largest
        exponentials = shifted.exp()
        classes = logits.shape[-1]
        local = label.astype("int64") - group.rank() * classes
        here = (local >= 0) & (local < classes) & (label != ignore_index)
        index = paddle.where(here, local, paddle.zeros_like(local))
        # The sum and the label's logit travel together: [..., 2]
        picked = paddle.take_along_axis(shifted, index, axis=-1) * here.astype(wide.dtype)
        sums = paddle.concat([exponentials.sum(axis=-1, keepdim=True), picked], axis=-1)
        group.all_reduce(sums).wait()
        total, picked = sums[..., :1], sums[..., 1:]
        kept = (label != ignore_index).astype(wide.dtype)
        softmax = exponentials / total
        ctx.save_for_backward(softmax, index, here.astype(wide.dtype), kept)
        ctx.dtype = logits.dtype
        loss = ((total.log() - picked) * kept).astype(logits.dtype)
        softmax_out = softmax.astype(logits.dtype)
        ctx.mark_non_differentiable(softmax_out)
        return loss, softmax_out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        gradient = gradients[0]
        softmax, index, here, kept = ctx.saved_tensor()
        target = paddle.nn.functional.one_hot(index.squeeze(-1), softmax.shape[-1]) * here
        scaled = (softmax - target.astype(softmax.dtype)) * kept * gradient.astype(softmax.dtype)
        return scaled.astype(ctx.dtype), None


_HALVES = (paddle.float16, paddle.bfloat16)


def _group(ring_id: int) -> CpuProcessGroup:
    group = get_group(ring_id)
    if group is None or not isinstance(group.process_group, CpuProcessGroup):
        raise ValueError(f"group {ring_id} is none that was made while oarlock's groups were installed")  # fmt: skip
    return group.process_group


def _part(x: Any, rank: int, nranks: int) -> Any:
    return paddle.split(x, nranks, axis=-1)[rank].contiguous()


def _gathered(x: Any, group: CpuProcessGroup) -> Any:
    parts = [paddle.empty_like(x) for _ in range(group.size())]
    group.all_gather(parts, x.contiguous(), True).wait()
    return paddle.concat(parts, axis=-1)
