"""Layers with sparse weights: ``SparseLinear`` of a fixed structure, ``MaskedLinear`` of a changing one."""

from collections.abc import Callable

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

from .. import _checks
from ._base import PATHS, SparseMatrix
from ._kept import KeptProduct
from .formats import BSR, CSR, FORMATS, check_block


class SparseLinear(nn.Layer):
    """``paddle.nn.Linear`` of which only the kept weights exist, as one parameter ``values``.

    An optimiser steps, and keeps state for, the kept values only.

    Args:
        weight: the weights [in, out] in a sparse format; its values are copied.
        bias: [out] to copy; None for none.
        path: as in ``SparseMatrix.matmul``.

    Raises:
        ValueError: an argument is not as above.
    """

    #: Kept values are a list: no rule for matrices fits them, whatever their shape.
    parameter_roles = {"values": "vector"}

    def __init__(
        self,
        weight: SparseMatrix,
        bias: paddle.Tensor | None = None,
        *,
        path: str | None = None,
    ):
        super().__init__()
        if not isinstance(weight, SparseMatrix):
            raise ValueError(
                f"weight must be one of {', '.join(FORMATS)}, got {_checks.shown(weight)}; "
                "SparseLinear.from_linear(linear) converts a layer."
            )
        self.path = _checks.choice("path", path, PATHS)
        self.values = self.create_parameter(weight.values.shape, dtype=weight.values.dtype)
        self.values.set_value(weight.values.detach())
        self._matrix = weight.with_values(self.values)
        self.bias = _copied(self, bias, weight.shape[1])

    @classmethod
    def from_linear(
        cls,
        linear: nn.Layer,
        *,
        block: tuple[int, int] | None = None,
        mask=None,
        path: str | None = None,
    ) -> "SparseLinear":
        """What ``linear`` has that is not zero, or that ``mask`` keeps.

        Args:
            linear: with ``weight`` [in, out] and ``bias``; a ``MaskedLinear`` gives its own mask.
            block: size of blocks, for BSR; None for CSR.
            mask: bool, of elements [in, out] or of blocks; None for what is not zero.
        """
        if isinstance(linear, MaskedLinear):
            return cls(linear.to_sparse(), linear.bias, path=path)
        weight, bias = linear.weight.detach(), getattr(linear, "bias", None)
        if block is None:
            return cls(CSR.from_dense(weight, mask=mask), bias, path=path)
        return cls(BSR.from_dense(weight, block=block, mask=mask), bias, path=path)

    @property
    def weight(self) -> SparseMatrix:
        """The weights [in, out], over the parameter."""
        return self._matrix

    def to_linear(self) -> nn.Linear:
        """A dense layer of the same function."""
        dense = nn.Linear(*self._matrix.shape, bias_attr=None if self.bias is not None else False)
        dense.weight.set_value(self._matrix.to_dense().detach())
        if self.bias is not None:
            dense.bias.set_value(self.bias)
        return dense

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = self._matrix.matmul(x, path=self.path)
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"{self._matrix!r}"


class MaskedLinear(nn.Layer):
    """``paddle.nn.Linear`` under a mask that a scheduler changes while training.

    The weight is a dense parameter, so any optimiser works and what was dropped may return, but
    products, forwards and backwards, are made with the kept part only. Its gradient is zero elsewhere
    unless ``dense_gradient`` is set, as RigL does for the steps at which it looks for what to grow.

    Args:
        in_features, out_features: sizes.
        block: the mask is of blocks of this size; None for single weights.
        bias: whether there is one.
        path: ``"native"`` kernels, ``"paddle"`` operators, None for the kernels wherever they can.

    Raises:
        ValueError: a block does not divide the weight.
    """

    parameter_roles = {"weight": "hidden_matrix"}

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        block: tuple[int, int] | None = None,
        bias: bool = True,
        path: str | None = None,
    ):
        super().__init__()
        shape = (
            _checks.whole("in_features", in_features, 1),
            _checks.whole("out_features", out_features, 1),
        )
        self.block = (1, 1) if block is None else check_block(block, shape)
        self.path = _checks.choice("path", path, PATHS)
        self.weight = self.create_parameter(list(shape))
        self.bias = self.create_parameter([shape[1]], is_bias=True) if bias else None
        self.dense_gradient = False
        #: what the layer multiplies by instead of the masked weight; set by a scheduler
        self.projection: Callable[[paddle.Tensor], paddle.Tensor] | None = None
        grid = [size // part for size, part in zip(shape, self.block)]
        self.register_buffer("mask", paddle.ones(grid, dtype="bool"))
        self._structure: BSR | CSR | None = None
        self._kept: np.ndarray | None = None  # the mask of that structure

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        *,
        block: tuple[int, int] | None = None,
        path: str | None = None,
    ) -> "MaskedLinear":
        """A copy of a dense layer; all of it is kept at first."""
        layer = cls(*linear.weight.shape, block=block, bias=linear.bias is not None, path=path)
        layer.weight.set_value(linear.weight)
        if layer.bias is not None:
            layer.bias.set_value(linear.bias)
        return layer

    @property
    def density(self) -> float:
        """Share of the weights that are kept."""
        return float(self.mask.numpy().mean())

    @paddle.no_grad()
    def set_mask(self, mask: np.ndarray) -> None:
        """Keep what the bool ``mask`` of blocks says; all else becomes zero, in the weight too."""
        mask = np.ascontiguousarray(mask)
        if mask.dtype != bool or list(mask.shape) != self.mask.shape:
            raise ValueError(
                f"mask must be bool of shape {list(self.mask.shape)}, got {mask.dtype} of shape "
                f"{list(mask.shape)}."
            )
        self.mask.set_value(paddle.to_tensor(mask, place=self.mask.place))
        self._structure = None
        self.weight.multiply_(self.element_mask().astype(self.weight.dtype))

    def element_mask(self) -> paddle.Tensor:
        """The mask of single weights, bool [in, out]."""
        (k, n), (down, across) = self.block, self.mask.shape
        if k == n == 1:
            return self.mask
        blocks = self.mask.reshape([down, 1, across, 1]).expand([down, k, across, n])
        return blocks.reshape([down * k, across * n])

    def to_sparse(self) -> BSR | CSR:
        """A copy of what is kept."""
        mask = self.mask.numpy()
        if self.block == (1, 1):
            return CSR.from_dense(self.weight.detach(), mask=mask)
        return BSR.from_dense(self.weight.detach(), block=self.block, mask=mask)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        if self.projection is not None:
            return F.linear(x, self.projection(self.weight), self.bias)
        if not self._is_native(x):
            masked = _Masked.apply(self.weight, self.element_mask(), self.dense_gradient)
            return F.linear(x, masked, self.bias)
        y = KeptProduct.apply(x, self.weight, self.structure(), self.dense_gradient)
        return y if self.bias is None else y + self.bias

    def structure(self) -> BSR | CSR:
        """Where the kept weights stand (its values are of the time when it was made)."""
        mask = self.mask.numpy()
        if self._structure is None or not np.array_equal(
            mask, np.asarray(self._kept)
        ):  # a state was loaded
            self._kept, self._structure = mask, self.to_sparse()
        return self._structure

    def _is_native(self, x: paddle.Tensor) -> bool:
        able = (
            x.dtype == self.weight.dtype == paddle.float32
            and x.place.is_cpu_place()
            and self.weight.place.is_cpu_place()
        )
        if self.path == "native" and not able:
            raise ValueError(
                f'path="native" takes float32 on the CPU, got {x.dtype} on {x.place}; use path=None.'
            )
        return able and self.path != "paddle"

    def extra_repr(self) -> str:
        rows, columns = self.weight.shape
        return f"in={rows}, out={columns}, block={self.block}, {self.density:.1%} kept"


class _Masked(PyLayer):
    """A weight times its mask; the gradient is masked too, or passed on whole."""

    @staticmethod
    def forward(ctx, weight, mask, dense_gradient):
        mask = mask.astype(weight.dtype)
        ctx.mask = None if dense_gradient else mask
        return weight * mask

    @staticmethod
    def backward(ctx, grad):
        return grad if ctx.mask is None else grad * ctx.mask


def _copied(layer: nn.Layer, bias: paddle.Tensor | None, columns: int):
    if bias is None:
        return None
    if bias.shape != [columns]:
        raise ValueError(f"bias has shape {list(bias.shape)}, but must be [{columns}].")
    own = layer.create_parameter([columns], dtype=bias.dtype, is_bias=True)
    own.set_value(bias)
    return own
