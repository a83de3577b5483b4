"""Rotation of the residual stream, folded into the weights around it."""

import copy
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from paddle import nn

from ... import _checks
from .. import hadamard
from ..hooks import watching
from ..layers import float_of, set_float, weight_of
from ..structure import get, matching, put
from .base import Context, ModelModifier
from .removal import loss_of_first

#: Relative difference of the loss that single precision may make.
ALLOWED = 1e-4


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RotateResidual(ModelModifier):
    """Rotates the hidden state between blocks, at no cost when the model runs.

    A root-mean-square norm commutes with rotations once its gains are folded into the linear layers
    that read it. So with Q = D H (random signs, Hadamard): embeddings and the linear layers that write
    the hidden state are multiplied by Q from the right, those that read it through a norm by Q^T from
    the left. Which layers these are is seen in a forward pass; that the loss stays is checked on a
    batch. Layer norms, which subtract a mean, and heads tied to the embedding do not allow it;
    ``Hadamard`` works there.

    Args:
        block: size of the Hadamard matrices, a power of two that divides the width; None for the
            largest.
        seed: of the signs.
        writers: patterns of the linear layers that write the hidden state; () for those in blocks
            that have its width as outputs and read no norm.

    Source: QuaRot 2404.00456, SliceGPT 2401.15024.
    """

    kind: ClassVar[str] = "rotate_residual"
    block: int | None = None
    seed: int = 0
    writers: tuple[str, ...] = ()

    def __post_init__(self):
        _checks.whole("seed", self.seed, 0)
        if self.block is not None and _checks.whole("block", self.block, 2) & (self.block - 1):
            raise ValueError(f"block must be a power of two, got {self.block}.")

    def apply(self, model: nn.Layer, context: Context) -> Mapping[str, Any]:
        """See ``ModelModifier.apply``."""
        before = loss_of_first(model, context)
        readers = _readers(model, context)
        if not readers:
            raise ValueError("no norm is read by a linear layer directly; use hadamard instead.")
        reading = {name for names in readers.values() for name in names}
        width = get(model, min(reading)).weight.shape[0]
        block = self.block or hadamard.largest_block(width)
        if block < 2 or width % block:
            raise ValueError(f"block {block} does not divide the width {width} of the model.")
        signs = hadamard.signs(width, self.seed).astype(np.float64)
        for norm, names in readers.items():
            gains = float_of(get(model, norm).weight)
            plain = copy.deepcopy(get(model, norm))
            set_float(plain.weight, np.ones_like(gains))
            put(model, norm, plain)
            for name in names:
                weight = gains[:, None] * weight_of(get(model, name))
                _replace(model, name, hadamard.rotate_rows(weight, signs, block), None)
        writers = self._writing(model, context, reading, width)
        for name in writers:
            layer = get(model, name)
            bias = None if layer.bias is None else float_of(layer.bias)[None]
            turned = None if bias is None else _columns(bias, signs, block)[0]
            _replace(model, name, _columns(weight_of(layer), signs, block), turned)
        for name, layer in list(model.named_sublayers()):
            if isinstance(layer, nn.Embedding) and layer.weight.shape[1] == width:
                table = copy.deepcopy(layer)
                set_float(table.weight, _columns(float_of(layer.weight), signs, block))
                put(model, name, table)
        after = loss_of_first(model, context)
        if not abs(after - before) <= ALLOWED * max(abs(before), 1e-3):
            raise ValueError(
                f"the hidden state of this model cannot be rotated: the loss would be {after:g} in "
                f"place of {before:g}. It needs root-mean-square norms that are read by linear layers "
                "only, a head of its own, and the right writers (now: "
                f"{', '.join(writers)}); or use hadamard instead."
            )
        return {"readers": sorted(reading), "writers": writers, "difference": after - before}

    def _writing(
        self, model: nn.Layer, context: Context, reading: set[str], width: int
    ) -> list[str]:
        linears = {n: layer for n, layer in model.named_sublayers() if type(layer) is nn.Linear}
        if self.writers:
            return list(matching(linears, self.writers, (), self.kind))
        return [
            name
            for name, layer in linears.items()
            if layer.weight.shape[1] == width
            and name not in reading
            and context.structure.block_of(name)
        ]


def _columns(weight: np.ndarray, signs: np.ndarray, block: int) -> np.ndarray:
    """W D H."""
    return hadamard.rotate_rows(weight.T, signs, block).T


def _replace(model: nn.Layer, name: str, weight: np.ndarray, bias: np.ndarray | None) -> None:
    layer = copy.deepcopy(get(model, name))
    set_float(layer.weight, weight)
    if bias is not None:
        set_float(layer.bias, bias)
    put(model, name, layer)


def _readers(model: nn.Layer, context: Context) -> dict[str, list[str]]:
    """Linear layers by the norm whose very output they take, seen on a batch."""
    made: dict[int, tuple[str, Any]] = {}  # the tensors too, so that no id is used twice
    found: dict[str, list[str]] = {}

    def norm_made(name: str, inputs: Any, output: Any) -> None:
        made[id(output)] = (name, output)

    def linear_reads(name: str, x: Any) -> None:
        if id(x) in made:
            found.setdefault(made[id(x)][0], []).append(name)

    before, after = {}, {}
    for name, layer in model.named_sublayers():
        gains = layer._parameters.get("weight")
        if type(layer) is nn.Linear:
            before[name] = functools.partial(linear_reads, name)
        elif gains is not None and len(gains.shape) == 1 and not layer._sub_layers:
            after[name] = functools.partial(norm_made, name)
    with watching(model, before=before, after=after):
        loss_of_first(model, context)
    return found
