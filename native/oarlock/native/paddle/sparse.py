"""Sparse products with gradients, for float32 tensors on the CPU.

Gradients of sparse weights are those of the kept values only. Whatever is not kept costs nothing,
forwards and backwards.

>>> from oarlock.native.paddle import sparse
>>> y = sparse.bsr_linear(x, values, pointers, indices, columns=out_features)
"""

from typing import Any

import numpy as np
import paddle
from paddle.autograd import PyLayer

from oarlock.native import sparse
from oarlock.native.paddle.bridge import from_numpy


def bsr_linear(
    x: paddle.Tensor,
    values: paddle.Tensor,
    pointers: Any,
    indices: Any,
    *,
    columns: int,
) -> paddle.Tensor:
    """Product of ``x`` and a block-sparse matrix [K, columns].

    Args:
        x: [..., K] float32.
        values: [blocks, k, n] float32.
        pointers, indices: the structure, as in ``oarlock.native.sparse.bsr_matmul``.
        columns: columns of the sparse matrix.

    Returns:
        [..., columns].

    Raises:
        ValueError: an argument is not as above.
    """
    return _BsrLinear.apply(x, values, pointers, indices, columns)


def csr_linear(
    x: paddle.Tensor,
    values: paddle.Tensor,
    pointers: Any,
    indices: Any,
    *,
    columns: int,
) -> paddle.Tensor:
    """Product of ``x`` and a sparse matrix [K, columns] in CSR.

    Args:
        x: [..., K] float32.
        values: [entries] float32.
        pointers, indices: the structure, as in ``oarlock.native.sparse.csr_matmul``.
        columns: columns of the sparse matrix.

    Returns:
        [..., columns].

    Raises:
        ValueError: an argument is not as above.
    """
    return _CsrLinear.apply(x, values, pointers, indices, columns)


def nm_linear(
    x: paddle.Tensor, values: paddle.Tensor, codes: Any, *, group: int = 4
) -> paddle.Tensor:
    """Product of ``x`` and an N:M-sparse matrix [K, N].

    Args:
        x: [..., K] float32.
        values: [kept, N] float32.
        codes: [kept, N] uint8, as in ``oarlock.native.sparse.nm_matmul``.
        group: M, rows of a group.

    Returns:
        [..., N].

    Raises:
        ValueError: an argument is not as above.
    """
    return _NmLinear.apply(x, values, codes, group)


def relu2_ffn(
    x: paddle.Tensor,
    w_in: paddle.Tensor,
    w_out: paddle.Tensor,
    b_in: paddle.Tensor | None = None,
    *,
    threshold: float = 0.0,
) -> paddle.Tensor:
    r"""Two layers with a squared ReLU between them; work is done for active neurons only.

    .. math:: y = \max(x W_1 + b - t, 0)^2 \, W_2

    The first product is dense, since it tells what is active. The second one and all four of the
    gradients skip what is zero. Results are those of the dense layers, NaN included, but for a NaN in
    a weight of a neuron that is nowhere active.

    Args:
        x: [..., D] float32.
        w_in: [D, F].
        w_out: [F, N].
        b_in: [F]; None for none.
        threshold: t, finite.

    Returns:
        [..., N].

    Raises:
        ValueError: an argument is not as above.

    Source: So et al. (Primer), 2109.08668, for the squared ReLU.
    """
    return relu2_ffn_measured(x, w_in, w_out, b_in, threshold=threshold)[0]


def relu2_ffn_measured(
    x: paddle.Tensor,
    w_in: paddle.Tensor,
    w_out: paddle.Tensor,
    b_in: paddle.Tensor | None = None,
    *,
    threshold: float = 0.0,
) -> tuple[paddle.Tensor, float, float]:
    """``relu2_ffn``, with the share of active neurons and the root mean square of x W_1 + b."""
    measured: dict[str, float] = {}
    y = _Relu2Ffn.apply(x, w_in, w_out, b_in, threshold, measured)
    return y, measured["active"], measured["rms"]


def skip_zeros_matmul(x: paddle.Tensor, w: paddle.Tensor) -> paddle.Tensor:
    """Product of ``x``, which is mostly zero, and a dense ``w``.

    The gradient of ``x`` is computed where ``x`` is not zero only, and is zero elsewhere: right behind
    an activation whose slope is zero where it is zero itself, as that of the squared ReLU.

    Args:
        x: [..., K] float32.
        w: [K, N] float32.

    Returns:
        [..., N].

    Raises:
        ValueError: an argument is not as above.
    """
    return _SkipZeros.apply(x, w)


def _check(x: paddle.Tensor) -> None:
    if len(x.shape) == 0 or x.dtype != paddle.float32 or not x.place.is_cpu_place():
        raise ValueError(
            f"x must be [..., K] float32 on the CPU, not {x.dtype} of shape {x.shape} on {x.place}; "
            "cast or move it, or multiply by the dense matrix"
        )


def _rows(x: paddle.Tensor) -> paddle.Tensor:
    """[..., K] as contiguous rows [M, K]."""
    rows = x.reshape([-1, x.shape[-1]])
    return rows if rows.is_contiguous() else paddle.assign(rows)


def _wanted(tensor: paddle.Tensor) -> bool:
    return not tensor.stop_gradient


class _Linear(PyLayer):
    """What the three formats share; a format gives the products."""

    @classmethod
    def run(cls, ctx, x, values, columns: int):
        _check(x)
        rows = _rows(x)
        out = paddle.empty([rows.shape[0], columns], dtype=x.dtype)
        ctx.save_for_backward(rows, values)
        ctx.wanted = _wanted(x), _wanted(values)
        ctx.shape = x.shape
        return rows, out, [*x.shape[:-1], columns]


class _BsrLinear(_Linear):
    @staticmethod
    def forward(ctx, x, values, pointers, indices, columns):
        rows, out, shape = _BsrLinear.run(ctx, x, values, columns)
        sparse.bsr_matmul(rows, pointers, indices, values, out)
        ctx.structure = pointers, indices
        return out.reshape(shape)

    @staticmethod
    def backward(ctx, grad):
        rows, values = ctx.saved_tensor()
        grad, dx, dvalues = _rows(grad), None, None
        if ctx.wanted[0]:
            dx = paddle.empty_like(rows)
            sparse.bsr_matmul(grad, *ctx.structure, values, dx, transpose=True)
            dx = dx.reshape(ctx.shape)
        if ctx.wanted[1]:
            dvalues = paddle.empty_like(values)
            sparse.bsr_sample(rows, grad, *ctx.structure, dvalues)
        return dx, dvalues


class _CsrLinear(_Linear):
    @staticmethod
    def forward(ctx, x, values, pointers, indices, columns):
        rows, out, shape = _CsrLinear.run(ctx, x, values, columns)
        turned = {"transpose": True, "transpose_dense": True, "transpose_out": True}
        sparse.csr_matmul(pointers, indices, values, rows, out, **turned)
        ctx.structure = pointers, indices
        return out.reshape(shape)

    @staticmethod
    def backward(ctx, grad):
        rows, values = ctx.saved_tensor()
        grad, dx, dvalues = _rows(grad), None, None
        if ctx.wanted[0]:
            dx = paddle.empty_like(rows)
            turned = {"transpose_dense": True, "transpose_out": True}
            sparse.csr_matmul(*ctx.structure, values, grad, dx, **turned)
            dx = dx.reshape(ctx.shape)
        if ctx.wanted[1]:
            dvalues = paddle.empty_like(values)
            sparse.csr_sample(rows, grad, *ctx.structure, dvalues, transpose=True)
        return dx, dvalues


class _NmLinear(_Linear):
    @staticmethod
    def forward(ctx, x, values, codes, group):
        rows, out, shape = _NmLinear.run(ctx, x, values, values.shape[-1])
        sparse.nm_matmul(rows, codes, values, out, group=group)
        ctx.structure = codes, group
        return out.reshape(shape)

    @staticmethod
    def backward(ctx, grad):
        rows, values = ctx.saved_tensor()
        codes, group = ctx.structure
        grad, dx, dvalues = _rows(grad), None, None
        if ctx.wanted[0]:
            dx = paddle.empty_like(rows)
            sparse.nm_matmul(grad, codes, values, dx, group=group, transpose=True)
            dx = dx.reshape(ctx.shape)
        if ctx.wanted[1]:
            dvalues = paddle.empty_like(values)
            sparse.nm_sample(rows, grad, codes, dvalues, group=group)
        return dx, dvalues


class _SkipZeros(PyLayer):
    @staticmethod
    def forward(ctx, x, w):
        _check(x)
        rows = _rows(x)
        ctx.entries = sparse.csr_from_dense(rows)
        out = paddle.empty([rows.shape[0], w.shape[-1]], dtype=x.dtype)
        sparse.csr_matmul(*ctx.entries, w, out)
        ctx.save_for_backward(w)
        ctx.wanted, ctx.shape = (_wanted(x), _wanted(w)), x.shape
        return out.reshape([*x.shape[:-1], w.shape[-1]])

    @staticmethod
    def backward(ctx, grad):
        (w,) = ctx.saved_tensor()
        pointers, indices, values = ctx.entries
        grad, dx, dw = _rows(grad), None, None
        if ctx.wanted[0]:
            found = np.empty_like(values)
            sparse.csr_sample(grad, w, pointers, indices, found)
            flat = np.zeros((grad.shape[0], w.shape[0]), np.float32)
            flat[np.repeat(np.arange(len(flat)), np.diff(pointers)), indices] = found
            dx = from_numpy(flat).reshape(ctx.shape)
        if ctx.wanted[1]:
            dw = paddle.empty_like(w)
            sparse.csr_matmul(pointers, indices, values, grad, dw, transpose=True)
        return dx, dw


class _Relu2Ffn(PyLayer):
    @staticmethod
    def forward(ctx, x, w_in, w_out, b_in, threshold, measured):
        _check(x)
        rows = _rows(x)
        z = paddle.matmul(rows, w_in)
        if b_in is not None:
            z = z + b_in
        pointers, indices, active = sparse.csr_from_dense(z, above=threshold)
        squares = np.square(active)
        measured["active"] = active.size / max(z.size, 1)
        measured["rms"] = float(paddle.norm(z).item()) / max(z.size, 1) ** 0.5
        out = paddle.empty([rows.shape[0], w_out.shape[-1]], dtype=x.dtype)
        sparse.csr_matmul(pointers, indices, squares, w_out, out)
        ctx.save_for_backward(rows, w_in, w_out)
        ctx.active = pointers, indices, active, squares
        ctx.wanted = tuple(map(_wanted, (x, w_in, w_out)))
        ctx.bias_wanted = None if b_in is None else _wanted(b_in)
        ctx.shape = x.shape
        return out.reshape([*x.shape[:-1], w_out.shape[-1]])

    @staticmethod
    def backward(ctx, grad):
        rows, w_in, w_out = ctx.saved_tensor()
        pointers, indices, active, squares = ctx.active
        grad, hidden = _rows(grad), w_in.shape[1]
        dx = dw_in = dw_out = db_in = None
        # Of the pre-activations: 2 max(z, 0) (dy . w_out), where they are active.
        dz = np.empty_like(active)
        sparse.csr_sample(grad, w_out, pointers, indices, dz)
        dz *= active
        dz *= np.float32(2)
        if ctx.wanted[0]:
            dx = paddle.empty_like(rows)
            sparse.csr_matmul(pointers, indices, dz, w_in, dx, transpose_dense=True)
            dx = dx.reshape(ctx.shape)
        if ctx.wanted[1] or ctx.wanted[2]:
            *turned, order = sparse.csr_transpose(pointers, indices, columns=hidden)
        if ctx.wanted[1]:
            dw_in = paddle.empty_like(w_in)
            sparse.csr_matmul(*turned, dz[order], rows, dw_in, transpose_out=True)
        if ctx.wanted[2]:
            dw_out = paddle.empty_like(w_out)
            sparse.csr_matmul(*turned, squares[order], grad, dw_out)
        if ctx.bias_wanted is None:
            return dx, dw_in, dw_out
        if ctx.bias_wanted:
            sums = np.bincount(indices, dz, minlength=hidden)
            db_in = paddle.to_tensor(sums.astype(np.float32), place=rows.place)
        return dx, dw_in, dw_out, db_in
