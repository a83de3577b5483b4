"""What one optimiser does to its tensors: the part that each new optimiser writes."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import paddle

from . import _checks


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Tensors that take the same step: same rule, learning rate, step number and path.

    Args:
        parameters: tensors to change in place: float32 master weights where there are any.
        grads: gradients, of the parameter's dtype or float32.
        states: for each state name, one tensor for each parameter.
        names: parameter names, for messages.
        lr: learning rate of these parameters at this step.
        step: 1 at the first step of these parameters.
        grad_scale: factor that global-norm clipping puts on the gradients.
        rounding_seed: seed of stochastic rounding, or None for round to nearest even.
    """

    parameters: list[paddle.Tensor]
    grads: list[paddle.Tensor]
    states: Mapping[str, list[paddle.Tensor]]
    names: list[str]
    lr: float
    step: int
    grad_scale: float
    rounding_seed: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """An update rule; its fields are the options that a parameter group may override.

    A subclass lists its options as fields, checks them in ``__post_init__``, names its state in
    ``state`` and writes the step twice: ``native`` with the kernels of ``oarlock.native`` on
    float32 and bfloat16 CPU tensors, ``plain`` with Paddle operators on float32 and float64
    tensors anywhere. Both must agree with the NumPy reference.

    ``cautious_weight_decay`` needs nothing of the rule but ``decoupled``: that its step is
    ``p <- (1 - lr weight_decay) p - lr u``, with ``u`` free of the decay. A rule whose decay is a
    part of the direction or of the state sets ``decoupled: ClassVar[bool] = False``.
    """

    decoupled: ClassVar[bool] = True

    weight_decay: float = 0.0
    lr_scale: float = 1.0
    cautious_weight_decay: bool = False
    # Of each parameter when the optimiser was built, for ``refuse_slice``; no option.
    _shapes: dict[str, tuple[int, ...]] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        _checks.non_negative("weight_decay", self.weight_decay)
        _checks.non_negative("lr_scale", self.lr_scale)
        _checks.flag("cautious_weight_decay", self.cautious_weight_decay)
        if self.cautious_weight_decay and not self.decoupled:
            raise ValueError(
                f"cautious_weight_decay must be False for {type(self).__name__}, whose weight decay "
                "is a part of the update's direction and cannot be masked afterwards; use an "
                "optimiser with decoupled decay, such as AdamW."
            )

    def state(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the state tensors, by name, for a parameter of this shape."""
        raise NotImplementedError

    def check(self, name: str, parameter: paddle.Tensor) -> None:
        """Raise ValueError if the rule has no meaning for this parameter."""

    def refuse_slice(self, name: str, parameter: paddle.Tensor, remedy: str) -> None:
        """Raise ValueError for a shard, also one that took its parameter's place since the first call.

        Paddle's sharding of the second stage (``DygraphShardingOptimizerV2``) hands over flat slices
        that carry the names of their parameters and say nothing of being slices.
        """
        refuse_shard(name, parameter, remedy)
        shape = tuple(parameter.shape)
        whole = self._shapes.setdefault(name, shape)
        if shape != whole:
            raise ValueError(
                f"parameter {name!r} had shape {list(whole)} when the optimiser was built and is "
                f"handed over with {list(shape)}: it is sharded, and its rule needs it whole. "
                f"{remedy}"
            )

    def saved_step(self, entries: Mapping) -> int | None:
        """Steps taken by a parameter, from its saved entries by name; None if they do not tell."""
        return int(entries["step"].item()) if "step" in entries else None

    def native(self, batch: Batch) -> None:
        """Take the step in place with native kernels."""
        raise NotImplementedError

    def plain(self, batch: Batch) -> None:
        """Take the step in place with Paddle operators."""
        raise NotImplementedError


def options(rule: Rule) -> tuple[str, ...]:
    """Names of the options of a rule."""
    return tuple(field.name for field in dataclasses.fields(rule) if field.init)


def refuse_shard(
    name: str,
    parameter: paddle.Tensor,
    remedy: str = "Gather it, or give it the role vector, so that AdamW updates it.",
) -> None:
    """Raise ValueError for a sharded parameter; for rules that need the whole matrix."""
    if parameter.is_dist() or getattr(parameter, "is_distributed", False) is True:
        raise ValueError(
            f"parameter {name!r} is sharded, and its rule needs the whole matrix. {remedy}"
        )
