"""Products of the kept part of a dense float32 weight on the CPU, without making it a tensor of its own."""

import numpy as np
import paddle
from oarlock.native import sparse as kernels
from oarlock.native.paddle import as_numpy
from paddle.autograd import PyLayer

from .formats import BSR, CSR

Structure = BSR | CSR


class KeptProduct(PyLayer):
    """``x @ weight`` over what ``structure`` keeps; gradients of ``x`` and of the dense weight.

    The weight's gradient is zero where nothing is kept, unless ``dense_gradient``.
    """

    @staticmethod
    def forward(ctx, x, weight, structure, dense_gradient):
        rows = _rows(x)
        values = _kept(as_numpy(weight), structure)
        out = paddle.empty([rows.shape[0], weight.shape[1]], dtype=x.dtype)
        _multiply(structure, values, rows, out, transpose=False)
        ctx.save_for_backward(rows)
        ctx.values, ctx.structure, ctx.dense_gradient = values, structure, dense_gradient
        ctx.wanted, ctx.shape = (not x.stop_gradient, not weight.stop_gradient), x.shape
        return out.reshape([*x.shape[:-1], weight.shape[1]])

    @staticmethod
    def backward(ctx, grad):
        (rows,) = ctx.saved_tensor()
        grad, dx, dweight = _rows(grad), None, None
        if ctx.wanted[0]:
            dx = paddle.empty_like(rows)
            _multiply(ctx.structure, ctx.values, grad, dx, transpose=True)
            dx = dx.reshape(ctx.shape)
        if ctx.wanted[1] and ctx.dense_gradient:
            dweight = paddle.matmul(rows, grad, transpose_x=True)
        elif ctx.wanted[1]:
            found = np.empty_like(ctx.values)
            _sample(ctx.structure, rows, grad, found)
            dweight = paddle.zeros(list(ctx.structure.shape), dtype=rows.dtype)
            _place(as_numpy(dweight), ctx.structure, found)
        return dx, dweight


def _rows(x: paddle.Tensor) -> paddle.Tensor:
    rows = x.reshape([-1, x.shape[-1]])
    return rows if rows.is_contiguous() else paddle.assign(rows)


def _multiply(structure: Structure, values, x, out, *, transpose: bool) -> None:
    parts = structure.pointers, structure.indices, values
    if isinstance(structure, BSR):
        kernels.bsr_matmul(x, *parts, out, transpose=transpose)
        return
    # x W = (W^T x^T)^T
    turned = {"transpose_dense": True, "transpose_out": True}
    kernels.csr_matmul(*parts, x, out, transpose=not transpose, **turned)


def _sample(structure: Structure, x, grad, out) -> None:
    if isinstance(structure, BSR):
        kernels.bsr_sample(x, grad, structure.pointers, structure.indices, out)
    else:
        kernels.csr_sample(x, grad, structure.pointers, structure.indices, out, transpose=True)


def _blocks(dense: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """A view [block row, block column, k, n]."""
    (rows, columns), (k, n) = dense.shape, block
    return dense.reshape(rows // k, k, columns // n, n).transpose(0, 2, 1, 3)


def _where(structure: Structure) -> tuple[np.ndarray, np.ndarray]:
    rows = np.repeat(np.arange(len(structure.pointers) - 1), np.diff(structure.pointers))
    return rows, structure.indices


def _kept(dense: np.ndarray, structure: Structure) -> np.ndarray:
    if isinstance(structure, BSR):
        dense = _blocks(dense, structure.block)
    return np.ascontiguousarray(dense[_where(structure)])


def _place(dense: np.ndarray, structure: Structure, values: np.ndarray) -> None:
    if isinstance(structure, BSR):
        dense = _blocks(dense, structure.block)
    dense[_where(structure)] = values
