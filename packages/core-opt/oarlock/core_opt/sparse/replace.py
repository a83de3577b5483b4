"""Putting sparse layers in the place of a model's linear ones."""

import re
from collections.abc import Callable

from paddle import nn

from .. import _checks
from .layers import MaskedLinear, SparseLinear


def replace_linear(
    model: nn.Layer,
    *,
    block: tuple[int, int] | None = None,
    where: str | Callable[[str, nn.Linear], bool] | None = None,
    path: str | None = None,
) -> list[str]:
    """Put a ``MaskedLinear`` of the same weights in the place of each ``Linear``; all is kept at first.

    Args:
        model: changed in place. Its parameters are new: build the optimiser afterwards.
        block: size of the mask's blocks; None for single weights.
        where: which ones: a pattern that the layer's name must contain, or a function of name and
            layer; None for all.
        path: as in ``MaskedLinear``.

    Returns:
        Names of the layers that were replaced.

    Raises:
        ValueError: none is chosen, or a block does not divide a weight; nothing was changed.
    """
    return _replace(
        model,
        nn.Linear,
        where,
        lambda layer: MaskedLinear.from_linear(layer, block=block, path=path),
    )


def freeze_masks(model: nn.Layer) -> list[str]:
    """Put a ``SparseLinear`` in the place of each ``MaskedLinear``: what is not kept is gone.

    Args:
        model: changed in place. Its parameters are new.

    Returns:
        Names of the layers that were replaced.

    Raises:
        ValueError: there is none.
    """
    return _replace(model, MaskedLinear, None, SparseLinear.from_linear)


def _replace(model: nn.Layer, kind: type, where, build: Callable) -> list[str]:
    if not isinstance(model, nn.Layer):
        raise ValueError(f"model must be a paddle.nn.Layer, got {_checks.shown(model)}.")
    chosen = [
        (name, layer)
        for name, layer in model.named_sublayers()
        if isinstance(layer, kind) and _is_chosen(where, name, layer)
    ]
    if not chosen:
        raise ValueError(
            f"model has no {kind.__name__} that is chosen; look at where and its names."
        )
    built = [(name, build(layer)) for name, layer in chosen]
    for name, layer in built:
        *parents, own = name.split(".")
        owner = model
        for parent in parents:
            owner = getattr(owner, parent)
        setattr(owner, own, layer)
    return [name for name, _ in built]


def _is_chosen(where, name: str, layer: nn.Layer) -> bool:
    if where is None:
        return True
    return bool(re.search(where, name)) if isinstance(where, str) else bool(where(name, layer))
