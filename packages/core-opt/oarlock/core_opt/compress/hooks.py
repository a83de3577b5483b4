"""Looking at the inputs and outputs of named layers while a model runs."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import paddle
from paddle import nn

from .structure import get

Before = Callable[[paddle.Tensor], None]
After = Callable[[tuple[Any, ...], Any], None]


@contextlib.contextmanager
def watching(
    model: nn.Layer,
    *,
    before: Mapping[str, Before] | None = None,
    after: Mapping[str, After] | None = None,
) -> Iterator[None]:
    """Call functions while the model runs inside; nothing is left behind.

    Args:
        model: that holds the layers.
        before: by name of a layer, called with its first input.
        after: by name of a layer, called with its inputs by position and what it returned.
    """
    hooks = []
    try:
        for name, see in (before or {}).items():
            layer: Any = get(model, name)
            hooks.append(layer.register_forward_pre_hook(_first(see)))
        for name, look in (after or {}).items():
            layer = get(model, name)
            hooks.append(layer.register_forward_post_hook(_both(look)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _first(see: Before) -> Callable[[Any, Any], None]:
    def hook(layer: Any, inputs: Any) -> None:
        see(inputs[0])

    return hook


def _both(look: After) -> Callable[[Any, Any, Any], None]:
    def hook(layer: Any, inputs: Any, output: Any) -> None:
        look(inputs, output)

    return hook
