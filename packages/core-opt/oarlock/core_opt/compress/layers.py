"""Layers that take the place of ``nn.Linear``: quantised, pruned; and of a block: nothing."""

import dataclasses
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from . import hadamard, packing
from .grids import Grid

_STILL = nn.initializer.Constant(0.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedSpec:
    """Everything about a quantised layer but its numbers.

    Args:
        in_features, out_features: of the map.
        bits: of a code.
        groups: of rows, each with a scale for each output.
        symmetric: whether the code of 0 is 2^(bits-1) everywhere, and not kept.
        bias: whether a bias is added.
        scaled_input: whether inputs are multiplied by a vector first.
        hadamard_block: size of the Hadamard matrices that rotate the inputs then; None for none.
        rank: of the residual that is added to the dequantised weight; 0 for none.
        activation_bits: inputs are rounded to so many, each row with a scale of its own; None not.
    """

    in_features: int
    out_features: int
    bits: int
    groups: int = 1
    symmetric: bool = True
    bias: bool = False
    scaled_input: bool = False
    hadamard_block: int | None = None
    rank: int = 0
    activation_bits: int | None = None


class _IntegerBuffers(nn.Layer):
    """``to(dtype=...)`` of a model leaves codes and masks as the whole numbers that they are."""

    def _apply(self, func, device, dtype, blocking, include_sublayers=True):
        def floats_only(tensor, device, dtype, blocking):
            return func(tensor, device, dtype if tensor.is_floating_point() else None, blocking)

        super()._apply(floats_only, device, dtype, blocking, include_sublayers)


class QuantizedLinear(_IntegerBuffers):
    """y = x' (scale (code - zero) + A B) + bias, x' the scaled, rotated and rounded input.

    The codes are buffers of packed bytes; scales, residual and bias are parameters, so that they
    can be trained. The weight is dequantised in every call, in float32.
    """

    def __init__(self, spec: QuantizedSpec):
        super().__init__()
        self.spec = spec
        rows, out, groups = spec.in_features, spec.out_features, spec.groups
        for index, width in enumerate(packing.FIELDS[spec.bits]):
            packed = paddle.zeros([-(-rows * width // 8), out], "uint8")
            self.register_buffer(f"codes{index}", packed)
        self.scale = self.create_parameter([groups, out], default_initializer=_STILL)
        if not spec.symmetric:
            self.register_buffer("zero", paddle.zeros([groups, out], "uint8"))
        if spec.bias:
            self.bias = self.create_parameter([out], is_bias=True)
        if spec.scaled_input:
            self.register_buffer("input_scale", paddle.ones([rows]))
        if spec.hadamard_block:
            self.register_buffer("signs", paddle.ones([rows], "int8"))
        if spec.rank:
            self.left = self.create_parameter([rows, spec.rank], default_initializer=_STILL)
            self.right = self.create_parameter([spec.rank, out], default_initializer=_STILL)

    @property
    def in_features(self) -> int:
        return self.spec.in_features

    @property
    def out_features(self) -> int:
        return self.spec.out_features

    def set_codes(self, codes: np.ndarray, grid: Grid) -> None:
        """Keep codes [in, out] and the scales and zeros of a grid."""
        for index, packed in enumerate(packing.pack(codes, self.spec.bits)):
            getattr(self, f"codes{index}").set_value(packed)
        self.scale.set_value(grid.scale)
        if not self.spec.symmetric:
            self.zero.set_value(grid.zero.astype(np.uint8))

    def _fields(self) -> list[paddle.Tensor]:
        return [
            getattr(self, f"codes{index}") for index in range(len(packing.FIELDS[self.spec.bits]))
        ]

    def codes(self) -> np.ndarray:
        """The codes [in, out], uint8."""
        fields = [field.numpy() for field in self._fields()]
        return packing.unpack(fields, self.spec.bits, self.spec.in_features)

    def zeros(self) -> np.ndarray:
        """The code of the weight 0 for each group and output, [groups, out] uint8."""
        if self.spec.symmetric:
            return np.full(self.scale.shape, 2 ** (self.spec.bits - 1), np.uint8)
        return self.zero.numpy()

    def dequantized(self) -> paddle.Tensor:
        """scale (code - zero), [in, out] float32: what transformed inputs are multiplied by."""
        spec = self.spec
        codes = packing.unpack_tensor(self._fields(), spec.bits, spec.in_features)
        if spec.symmetric:
            whole = codes - 2 ** (spec.bits - 1)
        else:
            shape = [spec.groups, -1, spec.out_features]
            whole = codes.reshape(shape) - self.zero.astype("int32").unsqueeze(1)
        grouped = whole.astype("float32").reshape([spec.groups, -1, spec.out_features])
        scale = self.scale.astype("float32").unsqueeze(1)
        return (grouped * scale).reshape([spec.in_features, spec.out_features])

    def transformed(self, x: paddle.Tensor) -> paddle.Tensor:
        """The inputs as they meet the dequantised weight."""
        spec = self.spec
        if spec.scaled_input:
            x = x * self.input_scale.astype(x.dtype)
        if spec.hadamard_block:
            x = hadamard.rotate_input(x, self.signs, spec.hadamard_block)
        if spec.activation_bits:
            x = round_rows(x, spec.activation_bits)
        return x

    def effective_weight(self) -> np.ndarray:
        """The matrix [in, out] that this layer multiplies its own inputs by, float64.

        Rounding of inputs is left out, which is not linear.
        """
        weight = self.dequantized().numpy().astype(np.float64)
        if self.spec.rank:
            weight = weight + self.left.numpy().astype(np.float64) @ self.right.numpy()
        if self.spec.hadamard_block:  # D H of x D H
            signs = self.signs.numpy().astype(np.float64)
            rotated = hadamard.rotate_rows(weight, np.ones(len(weight)), self.spec.hadamard_block)
            weight = signs[:, None] * rotated
        if self.spec.scaled_input:
            weight = self.input_scale.numpy()[:, None] * weight
        return weight

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.transformed(x)
        y = paddle.matmul(x, self.dequantized().astype(x.dtype))
        if self.spec.rank:
            y = y + paddle.matmul(
                paddle.matmul(x, self.left.astype(x.dtype)), self.right.astype(x.dtype)
            )
        return y + self.bias.astype(y.dtype) if self.spec.bias else y

    def num_bytes(self) -> int:
        """Bytes of codes, scales, zeros, transforms and residual; not of the bias."""
        held = dict(self.named_parameters()) | dict(self.named_buffers())
        return sum(
            int(np.prod(tensor.shape)) * tensor.element_size()
            for name, tensor in held.items()
            if name != "bias"
        )

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in dataclasses.asdict(self.spec).items())


def round_rows(x: paddle.Tensor, bits: int) -> paddle.Tensor:
    """Inputs rounded to whole multiples of a scale for each row; gradients pass unchanged."""
    top = 2 ** (bits - 1) - 1
    scale = paddle.clip(x.detach().abs().max(-1, keepdim=True), min=1e-30) / top
    rounded = paddle.clip(paddle.round(x.detach() / scale), -top, top) * scale
    return x + (rounded - x.detach())


class PrunedLinear(_IntegerBuffers, nn.Linear):
    """A linear layer some of whose weights are zero and stay so, also in training.

    y = x (W mask) + bias; the mask is a buffer of bytes.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool):
        super().__init__(in_features, out_features, bias_attr=None if bias else False)
        self.register_buffer("mask", paddle.ones([in_features, out_features], "uint8"))

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.linear(x, self.weight * self.mask.astype(self.weight.dtype), self.bias)

    def density(self) -> float:
        """Share of the weights that are kept."""
        return float(self.mask.numpy().mean())


class Skip(nn.Layer):
    """In the place of a removed block: gives its first inputs back.

    Args:
        outputs: how many values the block returned as a tuple; None for a single one.
    """

    def __init__(self, outputs: int | None):
        super().__init__()
        self.outputs = outputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if self.outputs is None else args[: self.outputs]


def set_float(parameter: Any, values: np.ndarray) -> None:
    """Set a parameter of any floating-point type from an array."""
    wide = "float64" if parameter.dtype == paddle.float64 else "float32"
    parameter.set_value(paddle.to_tensor(values.astype(wide)).astype(parameter.dtype))


def float_of(parameter: Any) -> np.ndarray:
    """A parameter of any floating-point type as float64."""
    return parameter.astype("float64").numpy()


def weight_of(layer: Any) -> np.ndarray:
    """Weight [in, out] of a linear layer as float64, pruned ones as zero."""
    weight = float_of(layer.weight)
    if isinstance(layer, PrunedLinear):
        weight *= layer.mask.numpy()
    return weight
