"""Optimiser state to and from a dictionary, by Paddle's names."""

from collections.abc import Mapping

import numpy as np
import paddle
from paddle.optimizer.lr import LRScheduler

from ._gradients import LOW_PRECISION

MASTER, SCHEDULER = "master_weights", "LR_Scheduler"
NOT_STATE = (MASTER, SCHEDULER, "StructuredToParameterName@@")  # the last is paddle.save's own


def state_dict(optimizer) -> dict:
    """See ``Optimizer.state_dict``."""
    state = {}
    for tensors in optimizer._accumulators.values():
        for tensor in tensors.values():
            state[tensor.name] = tensor
    for slot in optimizer._slots.values():
        if slot.step:
            state[_step_key(optimizer, slot.name)] = paddle.to_tensor(
                [slot.step], dtype="int64", place=paddle.CPUPlace()
            )
    if optimizer._master_weights:
        state[MASTER] = dict(optimizer._master_weights)
    if isinstance(optimizer._learning_rate, LRScheduler):
        state[SCHEDULER] = optimizer._learning_rate.state_dict()
    return state


def load_state(optimizer, state: Mapping) -> None:
    """See ``Optimizer.set_state_dict``."""
    scheduler = optimizer._learning_rate
    if isinstance(scheduler, LRScheduler) and SCHEDULER not in state:
        raise ValueError(
            f"the state has no {SCHEDULER!r} entry, but the learning rate is a "
            f"{type(scheduler).__name__}; load a state saved with a scheduler."
        )
    by_name = {parameter.name: parameter for parameter in parameters(optimizer)}
    masters = state.get(MASTER, {})
    entries = {key: value for key, value in state.items() if key not in NOT_STATE}
    _refuse_strangers({*entries, *masters}, by_name)
    plan, steps = [], {}
    for name, slot in optimizer._slots.items():
        found = entries_of(optimizer, name, entries)
        shapes = slot.rule.state(tuple(by_name[name].shape))
        steps[name] = slot.rule.saved_step(found)
        present = [key for key in shapes if key in found]
        if not present and steps[name] is None:
            steps[name] = 0
            continue
        missing = [key for key in shapes if key not in found]
        if missing or steps[name] is None:
            raise ValueError(
                f"the state lacks {missing or ['step']} for parameter {name!r}; it was saved by "
                f"another optimiser than {type(optimizer).__name__}, or is truncated."
            )
        for key, shape in shapes.items():
            value = checked(f"{key} of {name}", found[key], shape)
            plan.append((key, by_name[name], shape, value))
    masters = {
        name: checked(f"master weight of {name}", value, tuple(by_name[name].shape))
        for name, value in masters.items()
    }
    _check_masters(optimizer, masters, steps, by_name)
    _commit(optimizer, plan, steps, masters, by_name)
    if isinstance(scheduler, LRScheduler):
        scheduler.set_state_dict(state[SCHEDULER])


def _check_masters(optimizer, masters: Mapping, steps: Mapping, by_name: Mapping) -> None:
    """Masters of low-precision parameters, if and only if the optimiser steps from them."""
    for name, parameter in by_name.items():
        if parameter.dtype not in LOW_PRECISION:
            continue
        if optimizer._multi_precision and steps[name] and name not in masters:
            raise ValueError(
                f"the state has no master weight of {name!r}: it was saved with "
                "multi_precision=False, or is truncated. Build the optimiser with "
                "multi_precision=False to continue from the rounded weights."
            )
        if not optimizer._multi_precision and name in masters:
            raise ValueError(
                f"the state has a master weight of {name!r}, which an optimiser with "
                "multi_precision=False would leave behind. Build it with multi_precision=True, "
                "or call paddle.amp.decorate before loading."
            )


def entries_of(optimizer, name: str, entries: Mapping) -> dict:
    """Entries of one parameter by state name; Paddle files them under the master weight's name."""
    found = {}
    for owner in (f"{name}_fp32_master_0", name):
        start = f"{owner}_{optimizer._state_key('')}"
        for key, value in entries.items():
            if key.startswith(start) and key.endswith("_0"):
                found[key[len(start) : -2]] = value
    return found


def _commit(optimizer, plan, steps, masters, parameters) -> None:
    optimizer._accumulators.clear()
    for name, step in steps.items():
        optimizer._slots[name].step = step
        optimizer._slots[name].states = {}
    for key, parameter, shape, value in plan:
        tensor = optimizer._new_state(key, shape, parameter, parameter.dtype)
        tensor.set_value(value.astype(tensor.dtype))
        optimizer._slots[parameter.name].states[key] = tensor
    optimizer._master_weights = {}
    for name, value in masters.items():
        with paddle.base.dygraph.guard(parameters[name].place):
            master = paddle.zeros(value.shape, dtype="float32")
        master.set_value(value.astype("float32"))
        master.name = f"{name}_fp32_master_0"
        optimizer._master_weights[name] = master


def parameters(optimizer) -> list:
    """All parameters of the optimiser, group after group."""
    groups = optimizer._param_groups
    if isinstance(groups[0], dict):
        return [parameter for group in groups for parameter in group["params"]]
    return groups


def _step_key(optimizer, name: str) -> str:
    return f"{name}_{optimizer._state_key('step')}_0"


def checked(key: str, value, shape: tuple[int, ...]) -> paddle.Tensor:
    """``value`` as a tensor; ValueError naming ``key`` if it has another shape."""
    tensor = value if isinstance(value, paddle.Tensor) else paddle.to_tensor(np.asarray(value))
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(
            f"{key!r} has shape {list(tensor.shape)} in the state, but {list(shape)} is needed."
        )
    return tensor


def _refuse_strangers(keys: set[str], parameters: Mapping) -> None:
    strangers = sorted(
        key
        for key in keys
        if key not in parameters and not any(key.startswith(f"{name}_") for name in parameters)
    )
    if strangers:
        raise ValueError(
            f"the state holds {len(strangers)} entries of parameters that this optimiser does not "
            f"have: {strangers[:3]}. Names follow the order in which layers are built: build the "
            "model first in a fresh process, or under paddle.utils.unique_name.guard()."
        )
