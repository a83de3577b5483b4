"""What there is to compress in a model: its linear layers, and the list of its blocks."""

import dataclasses
import fnmatch
from collections.abc import Iterable, Sequence

import paddle
from paddle import nn

from .. import _checks


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """Names in a model.

    Args:
        linears: of the layers that are ``nn.Linear``, in the order of the model.
        blocks: of the repeated blocks, in their order; may be empty.
    """

    linears: tuple[str, ...]
    blocks: tuple[str, ...]

    def block_of(self, name: str) -> str | None:
        """The block that a layer lies in, or None."""
        for block in self.blocks:
            if name == block or name.startswith(f"{block}."):
                return block
        return None


def structure(model: nn.Layer, *, blocks: str | Sequence[str] | None = None) -> Structure:
    """Find linear layers and blocks.

    Args:
        model: any layer.
        blocks: name of the ``LayerList`` or names of the blocks; None takes the list that holds the
            most linear layers, or no blocks if there is no list.

    Raises:
        ValueError: the model has no linear layer, or no such blocks.
    """
    if not isinstance(model, nn.Layer):
        raise ValueError(f"model must be a paddle.nn.Layer, got {type(model).__name__}.")
    layers = dict(model.named_sublayers())
    linears = tuple(name for name, layer in layers.items() if isinstance(layer, nn.Linear))
    if not linears:
        raise ValueError(
            f"model {type(model).__name__} has no paddle.nn.Linear; nothing is left to compress."
        )
    if blocks is None:
        names = _found(layers, linears)
    elif isinstance(blocks, str):
        if blocks not in layers or not isinstance(layers[blocks], nn.LayerList | nn.Sequential):
            lists = [name for name, layer in layers.items() if isinstance(layer, nn.LayerList)]
            raise ValueError(
                f"blocks must name a LayerList of the model, got {blocks!r}; "
                f"it has: {', '.join(lists) or 'none'}."
            )
        names = _members(blocks, layers[blocks])
    else:
        names = tuple(blocks)
        for name in names:
            if name not in layers:
                raise ValueError(f"blocks: no layer {name!r}; {_checks.suggestion(name, layers)}")
    return Structure(linears=linears, blocks=names)


def _members(name: str, layer: nn.Layer) -> tuple[str, ...]:
    return tuple(f"{name}.{key}" for key in layer._sub_layers)


def _found(layers: dict[str, nn.Layer], linears: tuple[str, ...]) -> tuple[str, ...]:
    best: tuple[str, ...] = ()
    most = 0
    for name, layer in layers.items():
        held = sum(linear.startswith(f"{name}.") for linear in linears)
        if isinstance(layer, nn.LayerList) and len(layer) > 1 and held > most:
            best, most = _members(name, layer), held
    return best


def get(model: nn.Layer, name: str) -> nn.Layer:
    """The layer of a name."""
    layer = model
    for part in name.split("."):
        layer = layer._sub_layers[part]
    return layer


def put(model: nn.Layer, name: str, layer: nn.Layer) -> None:
    """Set another layer in the place of one."""
    parent, _, last = name.rpartition(".")
    owner = get(model, parent) if parent else model
    layer.training = owner._sub_layers[last].training
    owner._sub_layers[last] = layer


def matching(
    names: Iterable[str], targets: Sequence[str], ignore: Sequence[str], what: str
) -> tuple[str, ...]:
    """Names that match a pattern of ``targets`` and none of ``ignore``.

    Raises:
        ValueError: a pattern of either matches nothing.
    """
    names = tuple(names)
    for field, patterns in (("targets", targets), ("ignore", ignore)):
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise ValueError(
                    f"{what}: {field} pattern {pattern!r} matches no linear layer; "
                    f"{_checks.suggestion(pattern, names)}"
                )
    return tuple(
        name
        for name in names
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in targets)
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)
    )


def is_float(tensor: paddle.Tensor) -> bool:
    """Whether a tensor holds floating-point numbers."""
    return tensor.dtype in (paddle.float32, paddle.float64, paddle.float16, paddle.bfloat16)
