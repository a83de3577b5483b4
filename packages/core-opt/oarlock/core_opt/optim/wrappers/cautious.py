"""Cautious weight decay, switched on for an optimiser that is there already."""

import dataclasses

import paddle

from .. import _checks
from .._base import Optimizer
from ._wrapper import chain


def cautious_weight_decay(optimizer: paddle.optimizer.Optimizer) -> paddle.optimizer.Optimizer:
    r"""Let weight decay act only where the update goes towards zero as well.

    For an optimiser whose step is :math:`x_{t+1} = x_t - \eta (u_t + \lambda x_t)`,

    .. math::
        x_{t+1} = x_t - \eta \left(u_t + \lambda\,\mathbb{1}[u_t x_t \ge 0]\, x_t\right)

    element by element. Updates that are zero in floating point count as towards zero. It can also
    be had for one group: ``{"params": [...], "cautious_weight_decay": True}``. Costs a copy of the
    parameters that are updated together, for the time of the step.

    Args:
        optimizer: an optimiser of this package, wrapped or not; it is changed in place.

    Returns:
        The same optimiser.

    Raises:
        ValueError: the decay is a part of this optimiser's direction, or no parameter has any, or
            the optimiser is not of this package. Nothing is changed then.

    Source: Chen et al., 2510.12402.
    """
    inside = chain(optimizer)[-1]
    if not isinstance(inside, Optimizer):
        raise ValueError(
            "optimizer must be one of this package's, such as optim.AdamW(parameters=...), got "
            f"{_checks.shown(optimizer)}."
        )
    if not any(slot.rule.weight_decay for slot in inside._slots.values()):
        raise ValueError(
            "optimizer has no weight decay, so there is nothing to be cautious with; "
            "build it with weight_decay > 0."
        )
    rules = {
        name: dataclasses.replace(slot.rule, cautious_weight_decay=True)
        for name, slot in inside._slots.items()
        if slot.rule.weight_decay
    }
    for name, rule in rules.items():
        inside._slots[name].rule = rule
    return optimizer
