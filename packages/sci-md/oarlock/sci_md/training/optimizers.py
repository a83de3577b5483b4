"""Optimizers of Paddle, by name or given, and their state under names that last.

Paddle names the tensors of an optimizer after counters of the process; a state that is to be read by
another process, or by another optimizer in the same one, needs the names of the model's parameters.
"""

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, _C_ops, nn

from oarlock.sci_md.training.settings import OptimizerSettings

NEEDS_CLOSURE = ("LBFGS",)


def build(
    settings: OptimizerSettings, model: nn.Layer, learning_rate: float
) -> paddle.optimizer.Optimizer:
    """Raises ValueError: no such optimizer, one that needs a closure, or arguments it does not take."""
    kinds: dict[str, Any] = {
        name.lower(): kind
        for name, kind in vars(paddle.optimizer).items()
        if inspect.isclass(kind)
        and issubclass(kind, paddle.optimizer.Optimizer)
        and kind is not paddle.optimizer.Optimizer
        and name not in NEEDS_CLOSURE
    }
    kind = kinds.get(settings.name.lower())
    if kind is None:
        names = ", ".join(sorted(one.__name__ for one in kinds.values()))
        raise ValueError(
            f"optimizer.name={settings.name!r} is not known: there are {names}; others can be given "
            "as objects from Python"
        )
    taken = set(inspect.signature(kind).parameters) - {"learning_rate", "parameters", "grad_clip"}
    unknown = sorted(set(settings.options) - taken)
    if unknown:
        raise ValueError(
            f"optimizer.options: {kind.__name__} takes no {', '.join(unknown)}: it takes "
            f"{', '.join(sorted(taken))}"
        )
    return kind(learning_rate=learning_rate, parameters=model.parameters(), **settings.options)


def norm(gradients: Sequence[Tensor | None]) -> float:
    """√Σ g² of all together."""
    squares = [_C_ops.squared_l2_norm(one) for one in gradients if one is not None]
    return math.sqrt(float(paddle.concat(squares).sum())) if squares else 0.0


@paddle.no_grad()
def scale(gradients: Sequence[Tensor | None], factor: float) -> None:
    """In place."""
    for one in gradients:
        if one is not None:
            one.scale_(factor)


def pack(optimizer: paddle.optimizer.Optimizer, model: nn.Layer) -> dict[str, np.ndarray]:
    """The tensors of an optimizer's state by ``parameter|quantity``."""
    names = _lasting_names(model)
    return {
        _lasting(key, names): np.array(value.numpy(), order="C")
        for key, value in optimizer.state_dict().items()
        if isinstance(value, Tensor)
    }


def pack_rest(optimizer: paddle.optimizer.Optimizer) -> dict[str, Any]:
    """What is no tensor: the state of Paddle's own schedulers, and counters."""
    return {
        key: value
        for key, value in optimizer.state_dict().items()
        if not isinstance(value, Tensor) and key != "master_weights"
    }


def unpack(
    optimizer: paddle.optimizer.Optimizer,
    model: nn.Layer,
    tensors: Mapping[str, np.ndarray],
    rest: Mapping[str, Any],
) -> None:
    """Gives a fresh optimizer the state of another. The model's parameters may change: set them after.

    Raises:
        ValueError: the state is of another optimizer or model.
    """
    if tensors:
        _make_state(optimizer, model)
    names = _lasting_names(model)
    mine = {
        key: value for key, value in optimizer.state_dict().items() if isinstance(value, Tensor)
    }
    wanted = {_lasting(key, names): key for key in mine}
    if set(wanted) != set(tensors):
        different = sorted(set(wanted) ^ set(tensors))
        raise ValueError(
            f"the checkpoint's optimizer has another state ({', '.join(different[:4])}…): resume with "
            "the optimizer that the run began with"
        )
    state: dict[str, Any] = dict(rest)
    for lasting, key in wanted.items():
        state[key] = paddle.to_tensor(tensors[lasting], dtype=mine[key].dtype)
    optimizer.set_state_dict(state)


def _make_state(optimizer: paddle.optimizer.Optimizer, model: nn.Layer) -> None:
    """One step with zero gradients: Paddle makes an optimizer's state at its first step."""
    for parameter in model.parameters():
        if not parameter.stop_gradient:
            (parameter.sum() * 0.0).backward()
    optimizer.step()
    optimizer.clear_grad()


def _lasting_names(model: nn.Layer) -> dict[str, str]:
    return {parameter.name: name for name, parameter in model.named_parameters()}


def _lasting(key: str, names: Mapping[str, str]) -> str:
    """``linear_3.w_0_moment1_0`` → ``readout.0.weight|moment1``."""
    best = max((name for name in names if key.startswith(name + "_")), key=len, default=None)
    if best is None:
        return key
    return f"{names[best]}|{re.sub(r'_[0-9]+$', '', key[len(best) + 1 :])}"
