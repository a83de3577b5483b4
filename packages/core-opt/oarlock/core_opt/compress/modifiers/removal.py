"""Removal of blocks, heads and neurons, those that the redundancy report finds least needed."""

import dataclasses
import fnmatch
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import paddle
from paddle import nn

from ... import _checks
from ..hooks import watching
from ..layers import PrunedLinear, Skip, float_of, set_float, weight_of
from ..registry import frozen
from ..statistics import evaluation
from ..structure import get, put
from .base import Context, ModelModifier

#: Relative difference of the loss by which a smaller layer may differ from a masked one.
ALLOWED = 1e-4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RemoveBlocks(ModelModifier):
    """Blocks give their inputs back.

    Args:
        count: how many; those whose removal the report foretells to cost least.
        names: these instead.
    """

    kind: ClassVar[str] = "remove_blocks"
    count: int = 1
    names: tuple[str, ...] = ()

    def __post_init__(self):
        _checks.whole("count", self.count, 1)

    def apply(self, model: nn.Layer, context: Context) -> Mapping[str, Any]:
        """See ``ModelModifier.apply``."""
        blocks = context.structure.blocks
        for name in self.names:
            if name not in blocks:
                raise ValueError(f"names: no block {name!r}; {_checks.suggestion(name, blocks)}")
        if not self.names and self.count >= len(blocks):
            raise ValueError(
                f"count must be below the {len(blocks)} blocks of the model, got {self.count}."
            )
        chosen = self.names
        if not chosen:
            present = [c for c in context.report({}).of("block") if _present(model, c.target)]
            foretold = sorted(present, key=lambda choice: choice.increase)
            chosen = tuple(choice.target for choice in foretold[: self.count])
        returned = _returned(model, context, chosen)
        for name in chosen:
            put(model, name, Skip(returned[name]))
        return {"blocks": list(chosen)}


def _present(model: nn.Layer, name: str) -> bool:
    """Whether a layer of the report is still there."""
    layers = dict(model.named_sublayers())
    return name in layers and not isinstance(layers[name], Skip)


def _returned(model: nn.Layer, context: Context, names: Sequence[str]) -> dict[str, int | None]:
    """How many values each block returns, None for a single tensor; seen on a batch."""
    found: dict[str, int | None] = {}

    def see(name: str, inputs: Any, output: Any) -> None:
        found[name] = len(output) if isinstance(output, tuple) else None
        if isinstance(output, tuple) and len(inputs) < len(output):
            raise ValueError(
                f"block {name!r} returns {len(output)} values but takes {len(inputs)} by position; "
                "it cannot be removed."
            )

    with watching(model, after={name: functools.partial(see, name) for name in names}):
        loss_of_first(model, context)
    for name in names:
        if name not in found:
            raise ValueError(f"the calibration data never reach block {name!r}.")
    return found


def loss_of_first(model: nn.Layer, context: Context) -> float:
    """The loss of the first calibration batch."""
    for batch in context.data.batches:
        with evaluation(model), paddle.no_grad():
            return float(context.data.loss(model, batch).numpy())
    raise ValueError("batches is empty; the removal is checked on a batch.")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RemoveHeads(ModelModifier):
    """The rows that read the least needed attention heads become zero.

    The layer keeps its shape, with a mask: how the heads of a model are cut out of its queries, keys
    and values is not known here.

    Args:
        heads: number of heads by pattern of the linear layer that reads them.
        share: of the heads of the whole model to remove.
    """

    kind: ClassVar[str] = "remove_heads"
    heads: Mapping[str, int] = dataclasses.field(default_factory=lambda: frozen(None))
    share: float = 0.1

    def __post_init__(self):
        _checks.real("share", self.share, 0.0, 1.0, open_low=True, open_high=True)
        if not isinstance(self.heads, Mapping) or not self.heads:
            raise ValueError(
                'heads must map patterns to numbers, {"*.attention.out": 8}, '
                f"got {_checks.shown(self.heads)}."
            )
        object.__setattr__(self, "heads", frozen(self.heads))

    def apply(self, model: nn.Layer, context: Context) -> Mapping[str, Any]:
        """See ``ModelModifier.apply``."""
        report = context.report(self.heads)
        foretold = sorted(report.of("head"), key=lambda choice: choice.increase)
        wanted = [c for c in foretold if any(fnmatch.fnmatchcase(c.target, p) for p in self.heads)]
        wanted = [choice for choice in wanted if _present(model, choice.target)]
        if not wanted:
            raise ValueError("the report has no heads of these layers; analyse with heads=... .")
        counts = {unit.layer: len(unit.increase) for unit in report.units if unit.kind == "head"}
        gone: dict[str, list[int]] = {}
        for choice in wanted[: round(self.share * len(wanted))]:
            gone.setdefault(choice.target, []).append(int(choice.setting))
        for name, numbers in gone.items():
            layer = get(model, name)
            if not isinstance(layer, nn.Linear):
                raise ValueError(
                    f"{name} is no linear layer any more; remove heads before rounding."
                )
            size = layer.weight.shape[0] // counts[name]
            rows = np.concatenate([np.arange(n * size, (n + 1) * size) for n in numbers])
            put(model, name, without_rows(layer, rows))
        return {"heads": gone}


def without_rows(layer: nn.Linear, rows: np.ndarray) -> PrunedLinear:
    """The layer with some inputs masked."""
    weight = weight_of(layer)
    pruned = PrunedLinear(*weight.shape, bias=layer.bias is not None)
    mask = layer.mask.numpy() if isinstance(layer, PrunedLinear) else np.ones_like(weight)
    mask = mask.astype(np.uint8)
    mask[rows] = 0
    pruned.mask.set_value(mask)
    pruned.to(dtype=layer.weight.dtype)
    set_float(pruned.weight, weight * mask)
    if layer.bias is not None:
        pruned.bias.set_value(layer.bias)
    return pruned


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RemoveNeurons(ModelModifier):
    """The least needed neurons go, and the layers that make and read them become smaller.

    That masking and removing them give the same loss is checked on a batch.

    Args:
        share: of the neurons of each layer.
        layers: patterns of the layers that read neurons; () for those of the report.
    """

    kind: ClassVar[str] = "remove_neurons"
    share: float = 0.1
    layers: tuple[str, ...] = ()

    def __post_init__(self):
        _checks.real("share", self.share, 0.0, 1.0, open_low=True, open_high=True)

    def apply(self, model: nn.Layer, context: Context) -> Mapping[str, Any]:
        """See ``ModelModifier.apply``."""
        units = [unit for unit in context.report({}).units if unit.kind == "neuron"]
        if self.layers:
            units = [u for u in units if any(fnmatch.fnmatchcase(u.layer, p) for p in self.layers)]
        units = [unit for unit in units if _present(model, unit.layer)]
        if not units:
            raise ValueError(
                "the report has no neurons of these layers; name them in the analysis."
            )
        removed = {}
        for unit in units:
            order = np.argsort(np.asarray(unit.increase), kind="stable")
            rows = np.sort(order[: round(self.share * len(order))])
            if len(rows):
                shrink(model, unit.layer, rows, context)
                removed[unit.layer] = len(rows)
        return {"neurons": removed}


def shrink(model: nn.Layer, name: str, rows: np.ndarray, context: Context) -> None:
    """Take inputs out of a linear layer, and the outputs that make them out of its neighbours.

    Raises:
        ValueError: no linear layer beside it makes these neurons, or more than they depends on them.
    """
    reader = get(model, name)
    if type(reader) is not nn.Linear:
        raise ValueError(f"{name} is no plain linear layer any more; remove neurons first.")
    size = reader.weight.shape[0]
    parent = name.rpartition(".")[0]
    owner = get(model, parent) if parent else model
    makers = [
        f"{parent}.{key}" if parent else key
        for key, layer in owner._sub_layers.items()
        if type(layer) is nn.Linear and layer is not reader and layer.weight.shape[1] == size
    ]
    if not makers:
        raise ValueError(f"no linear layer beside {name} has {size} outputs; name other layers.")
    put(model, name, without_rows(reader, rows))
    masked = loss_of_first(model, context)
    before: dict[str, Any] = {maker: get(model, maker) for maker in makers}
    kept = np.setdiff1d(np.arange(size), rows)
    put(model, name, _part(reader, inputs=kept))
    for maker, layer in before.items():
        put(model, maker, _part(layer, outputs=kept))
    reason = "the model cannot run without them"
    try:
        smaller = loss_of_first(model, context)
        reason = f"the loss is {smaller:g} in place of {masked:g}"
        same = abs(smaller - masked) <= ALLOWED * max(abs(masked), 1e-3)
    except (ValueError, RuntimeError) as error:
        reason, same = f"{reason}: {str(error).strip().splitlines()[-1]}", False
    if not same:
        raise ValueError(f"neurons before {name} are used elsewhere too: {reason}.")


def _part(
    layer: nn.Linear, inputs: np.ndarray | None = None, outputs: np.ndarray | None = None
) -> nn.Linear:
    weight = weight_of(layer)
    weight = weight if inputs is None else weight[inputs]
    weight = weight if outputs is None else weight[:, outputs]
    rows, columns = weight.shape
    smaller = nn.Linear(rows, columns, bias_attr=None if layer.bias is not None else False)
    smaller.to(dtype=layer.weight.dtype)
    set_float(smaller.weight, weight)
    if layer.bias is not None:
        bias = float_of(layer.bias)
        set_float(smaller.bias, bias if outputs is None else bias[outputs])
    return smaller
