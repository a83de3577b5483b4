"""Putting a plan to work in a model, and taking it out again."""

import contextlib
from collections.abc import Iterator
from functools import partial

import paddle
from paddle import nn

from .linear import Formats, linear, linears
from .plan import Plan


class Applied:
    """A plan at work in a model. Parameters, their names and ``state_dict`` are what they were.

    Attributes:
        model: whose linear layers compute by the plan.
        plan: which formats they take.
    """

    def __init__(self, model: nn.Layer, plan: Plan, *, native: bool = True):
        self.model, self.plan, self.native = model, plan, native
        self._layers: list[nn.Linear] = []
        layers = dict(linears(model))
        missing = sorted(plan.layers.keys() - layers.keys())
        if missing:
            raise ValueError(
                f"plan names layers that are not linear layers of the model: {', '.join(missing)};"
                " it was made for another model, or the model changed: search again."
            )
        taken = [name for name in plan.layers if "forward" in vars(layers[name])]
        if taken:
            raise ValueError(
                f"layer {taken[0]} of the model has a forward of its own already, perhaps by another"
                " plan: remove() that first."
            )
        for name, entry in plan.layers.items():
            if entry.formats.exact:
                continue
            layer = layers[name]
            vars(layer)["forward"] = partial(_forward, layer, entry.formats, native)
            self._layers.append(layer)

    def remove(self) -> None:
        """Let the model compute as before; a second call does nothing."""
        while self._layers:
            del vars(self._layers.pop())["forward"]

    def __enter__(self) -> "Applied":
        return self

    def __exit__(self, *_) -> None:
        self.remove()


def _forward(layer: nn.Linear, formats: Formats, native: bool, x: paddle.Tensor) -> paddle.Tensor:
    return linear(x, layer.weight, layer.bias, formats=formats, native=native)


def apply(model: nn.Layer, plan: Plan, *, native: bool = True) -> Applied:
    """Let the linear layers of a model compute by a plan, until ``remove()``.

    The layers stay the objects they were and their parameters stay float32 (or whatever they were), so
    optimisers, checkpoints and hooks notice nothing. Works as a context manager.

    Args:
        model: the one that the plan was searched for, or of the same structure.
        plan: of ``search``, or made by hand.
        native: False takes plain Paddle operators on the CPU too.

    Raises:
        ValueError: the plan names other layers, or one that has a plan already.
    """
    return Applied(model, plan, native=native)


@contextlib.contextmanager
def only(model: nn.Layer, name: str, role: str, number_format: str) -> Iterator[None]:
    """One product of one layer in a format, for the time of a ``with``."""
    with apply(model, Plan.of({name: Formats(**{role: number_format})})):
        yield
