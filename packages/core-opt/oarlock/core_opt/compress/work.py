"""One linear layer on its way through the modifiers, in NumPy."""

import dataclasses
from typing import Any

import numpy as np
import paddle
from paddle import nn

from . import hadamard, hessian
from .grids import Grid
from .layers import PrunedLinear, QuantizedLinear, QuantizedSpec, float_of, set_float, weight_of
from .statistics import InputStatistics


@dataclasses.dataclass(slots=True, kw_only=True)
class LayerWork:
    """Weight and input statistics of one layer, and what was done to them so far.

    All matrices are in the coordinates of the transformed input x' = (x input_scale) D H.

    Args:
        name: of the layer.
        weight: [in, out] float64, what is to be rounded.
        target: [in, out] float64, what the layer shall compute: only transforms change it.
        statistics: of the transformed input; None without calibration data.
        mask: [in, out] bool, weights that are kept; None for all.
        bias: [out] or None.
    """

    name: str
    weight: np.ndarray
    target: np.ndarray
    statistics: InputStatistics | None
    bias: np.ndarray | None
    mask: np.ndarray | None = None
    input_scale: np.ndarray | None = None
    signs: np.ndarray | None = None
    hadamard_block: int | None = None
    grid: Grid | None = None
    symmetric: bool = True
    codes: np.ndarray | None = None
    activation_bits: int | None = None
    left: np.ndarray | None = None
    right: np.ndarray | None = None
    damping: float | None = None
    dtype: Any = paddle.float32

    @classmethod
    def of(cls, name: str, layer: Any, statistics: InputStatistics | None) -> "LayerWork":
        """The work on a layer; its weights must be finite."""
        weight = weight_of(layer)
        if not np.isfinite(weight).all():
            raise ValueError(
                f"the weight of layer {name!r} holds NaN or Inf; mend the model first."
            )
        bias = None if layer.bias is None else float_of(layer.bias)
        mask = layer.mask.numpy().astype(bool) if isinstance(layer, PrunedLinear) else None
        return cls(
            name=name,
            weight=weight,
            target=weight,
            statistics=statistics,
            bias=bias,
            mask=mask,
            dtype=layer.weight.dtype,
        )

    @property
    def second_moment(self) -> np.ndarray:
        """E[x' x'^T]; the identity without statistics."""
        if self.statistics is None:
            return np.eye(len(self.weight))
        return self.statistics.second_moment

    def calibrated(self) -> InputStatistics:
        """The statistics; ValueError if there are none."""
        if self.statistics is None or not self.statistics.rows:
            raise ValueError(
                f"layer {self.name!r} saw no input from the calibration data; give batches that "
                "reach it, or ignore it."
            )
        return self.statistics

    def scale_inputs(self, factor: np.ndarray) -> None:
        """Multiply inputs by a vector, and rows of the weight by its inverse."""
        if self.hadamard_block:
            raise ValueError(f"{self.name}: scale inputs before they are rotated, not after.")
        factor = factor.astype(np.float32).astype(np.float64)
        self.weight = self.weight / factor[:, None]
        self.target = self.target / factor[:, None]
        if self.statistics is not None:
            self.statistics = self.statistics.scaled(factor)
        self.input_scale = factor if self.input_scale is None else self.input_scale * factor

    def rotate_inputs(self, signs: np.ndarray, block: int) -> None:
        """Rotate inputs by D H, and the weight to match."""
        if self.mask is not None or self.hadamard_block:
            raise ValueError(
                f"{self.name} is pruned or rotated already: a rotation would undo it; ignore it."
            )
        self.weight = hadamard.rotate_rows(self.weight, signs, block)
        self.target = self.weight
        if self.statistics is not None:
            moment = hadamard.rotate_hessian(self.statistics.second_moment, signs, block)
            # no bound for the rotated inputs is kept: it would need another pass over the data
            spread = np.sqrt(np.maximum(np.diagonal(moment), 0))
            self.statistics = InputStatistics(moment, spread, spread, self.statistics.rows)
        self.signs, self.hadamard_block = signs, block

    def quantized(self) -> np.ndarray:
        """The weight as it will be computed with, in transformed coordinates."""
        if self.grid is None or self.codes is None:
            return self.weight if self.mask is None else self.weight * self.mask
        values = self.grid.values(self.codes).astype(np.float64)
        if self.left is not None and self.right is not None:
            values = values + self.left @ self.right
        return values

    def relative_error(self) -> float:
        """Mean squared error of the outputs over their mean square."""
        moment = self.second_moment
        whole = hessian.error(self.target, moment)
        return hessian.error(self.quantized() - self.target, moment) / whole if whole else 0.0

    def build(self) -> nn.Layer:
        """The layer that takes the place of the linear one."""
        rows, out = self.weight.shape
        if self.grid is None or self.codes is None:
            assert self.mask is not None and self.input_scale is None and self.signs is None
            pruned = PrunedLinear(rows, out, bias=self.bias is not None)
            pruned.mask.set_value(self.mask.astype(np.uint8))
            pruned.to(dtype=self.dtype)
            set_float(pruned.weight, self.weight * self.mask)
            if self.bias is not None:
                set_float(pruned.bias, self.bias)
            return pruned
        layer = QuantizedLinear(self.spec())
        layer.set_codes(self.codes, self.grid)
        for name, value in self._parts().items():
            getattr(layer, name).set_value(value)
        return layer

    def spec(self) -> QuantizedSpec:
        """Of the quantised layer."""
        assert self.grid is not None
        rows, out = self.weight.shape
        return QuantizedSpec(
            in_features=rows,
            out_features=out,
            bits=self.grid.bits,
            groups=len(self.grid.scale),
            symmetric=self.symmetric,
            bias=self.bias is not None,
            scaled_input=self.input_scale is not None,
            hadamard_block=self.hadamard_block,
            rank=0 if self.left is None else self.left.shape[1],
            activation_bits=self.activation_bits,
        )

    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = {
            "bias": self.bias,
            "left": self.left,
            "right": self.right,
            "input_scale": self.input_scale,
        }
        found = {name: v.astype(np.float32) for name, v in parts.items() if v is not None}
        if self.signs is not None:
            found["signs"] = self.signs.astype(np.int8)
        return found
