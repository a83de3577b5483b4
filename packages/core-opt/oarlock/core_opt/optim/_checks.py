"""Argument checks of optimisers, beside the plain ones that need no Paddle."""

from collections.abc import Iterable

import paddle
from paddle.optimizer.lr import LRScheduler

from .._checks import choice, flag, fraction, non_negative, real, shown, suggestion, whole

__all__ = [
    "FLOATING",
    "NonFiniteGradient",
    "choice",
    "flag",
    "fraction",
    "learning_rate",
    "non_negative",
    "parameters",
    "real",
    "shown",
    "suggestion",
    "whole",
]

FLOATING = (paddle.float16, paddle.bfloat16, paddle.float32, paddle.float64)


class NonFiniteGradient(FloatingPointError):
    """A gradient holds NaN or Inf; nothing was changed."""


def learning_rate(value) -> float | LRScheduler:
    """Return a learning rate that Paddle accepts: a float >= 0 or an LRScheduler."""
    if isinstance(value, LRScheduler):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(
            "learning_rate must be a number >= 0 or a paddle.optimizer.lr.LRScheduler, "
            f"got {type(value).__name__}."
        )
    return non_negative("learning_rate", value)


def parameters(value) -> list:
    """Return a non-empty list of parameters, or of groups ``{"params": [...], ...}``.

    Empty groups are dropped; a list with nothing to train is refused.
    """
    if value is None:
        raise ValueError(
            "parameters is None; pass model.parameters(), or use "
            "oarlock.core_opt.optim.create(name, model). Static graphs are not supported."
        )
    if isinstance(value, (paddle.Tensor, dict, str)) or not isinstance(value, Iterable):
        raise ValueError(
            "parameters must be a list of parameters or a list of groups "
            f'{{"params": [...]}}, got {type(value).__name__}.'
        )
    items = list(value)
    if items and all(isinstance(item, dict) for item in items):
        items = [_group(index, item) for index, item in enumerate(items)]
        items = [group for group in items if group["params"]]
        tensors = [tensor for group in items for tensor in group["params"]]
    else:
        tensors = items
    if not tensors:
        raise ValueError("parameters is empty; pass at least one parameter, model.parameters().")
    seen = set()
    for tensor in tensors:
        _parameter(tensor)
        if id(tensor) in seen:
            raise ValueError(
                f"parameters holds {tensor.name!r} more than once; "
                "list every parameter once, in one group."
            )
        seen.add(id(tensor))
    return items


def _group(index: int, group: dict) -> dict:
    if "params" not in group:
        raise ValueError(f'parameters[{index}] has no "params" key; keys: {sorted(group)}.')
    members = group["params"]
    if isinstance(members, paddle.Tensor):
        members = [members]
    elif isinstance(members, (set, dict, str)) or not isinstance(members, Iterable):
        raise ValueError(
            f'parameters[{index}]["params"] must be a list of parameters, '
            f"got {type(members).__name__}."
        )
    return {**group, "params": list(members)}


def _parameter(tensor) -> None:
    if not isinstance(tensor, paddle.Tensor):
        raise ValueError(
            f"parameters must hold paddle tensors, got {type(tensor).__name__}; "
            "pass model.parameters(), or only groups (dicts)."
        )
    if tensor.is_sparse() or tensor.is_selected_rows():
        raise ValueError(f"parameter {tensor.name!r} is sparse; only dense tensors are supported.")
    if tensor.dtype not in FLOATING:
        raise ValueError(
            f"parameter {tensor.name!r} has dtype {tensor.dtype}; supported: float16, bfloat16, "
            "float32, float64. Exclude it, or cast it."
        )
    if getattr(tensor, "regularizer", None) is not None:
        raise ValueError(
            f"parameter {tensor.name!r} has a regularizer of its own ({tensor.regularizer}), which "
            "adds to the gradient; decay here is decoupled. Take it out of ParamAttr and give "
            "weight_decay to a group."
        )
