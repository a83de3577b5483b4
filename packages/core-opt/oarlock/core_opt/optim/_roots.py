"""Eigenbases and inverse roots of stacks of symmetric matrices, kept still where they are zero."""

import numpy as np
import paddle

# Eigenvalues below this times the largest are rounding of float32 statistics. It is the same for
# every dtype, so that every path and the reference decide alike.
NEGLIGIBLE = 2.0**-20


def eigh(stack: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Eigenvalues [n, s], ascending, and eigenvectors [n, s, s], in float64.

    On the CPU it is NumPy's: Paddle's takes ten times as long.
    """
    wide = stack.astype("float64")
    if wide.place.is_cpu_place():
        found = np.linalg.eigh(wide.numpy())
        values, vectors = (paddle.to_tensor(array, place=wide.place) for array in found)
        return values, vectors
    return paddle.linalg.eigh(wide)


def eigenbasis(stack: paddle.Tensor) -> paddle.Tensor:
    """Orthonormal eigenvectors as columns, largest eigenvalue first.

    Where the matrix is zero within rounding, eigenvectors are arbitrary; there the columns are the
    completion by Householder reflections, a function of the other columns alone.

    Args:
        stack: symmetric positive semidefinite matrices [n, s, s].

    Returns:
        Bases [n, s, s] in the dtype of ``stack``.
    """
    values, vectors = eigh(stack)
    values, vectors = paddle.flip(values, [-1]), paddle.flip(vectors, [-1])
    kept = values > NEGLIGIBLE * values[:, :1]
    vectors = _only(vectors, kept.unsqueeze(-2))
    return paddle.linalg.qr(vectors.astype(stack.dtype))[0]


def refreshed(stack: paddle.Tensor, bases: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    """One power iteration on bases of slowly changing matrices, orthonormalised by QR.

    Columns are sorted by their Rayleigh quotients first. A column that the matrix sends into the
    span of those before it, within rounding, would become noise; it keeps its direction instead,
    as far as it is orthogonal to them.

    Args:
        stack: symmetric positive semidefinite matrices [n, s, s].
        bases: their bases so far, [n, s, s].

    Returns:
        The new bases, and the order [n, s] in which the old columns were taken.

    Source: Vyas et al. (SOAP), 2409.11321, algorithm 4; the care for null spaces is ours.
    """
    product = paddle.matmul(stack, bases)
    quotients = (bases * product).sum(-2)  # [n, s]
    quotients = _only(quotients, quotients > NEGLIGIBLE * quotients.max(-1, keepdim=True))
    order = paddle.argsort(-quotients, axis=-1, stable=True)
    product = _columns(product, order)
    found, factor = paddle.linalg.qr(product)
    diagonal = paddle.diagonal(factor, axis1=-2, axis2=-1).abs()
    lost = diagonal <= NEGLIGIBLE * diagonal.max(-1, keepdim=True)
    if lost.any():
        still = _columns(bases, order)
        found = paddle.linalg.qr(paddle.where(lost.unsqueeze(-2), still, product))[0]
    return found, order


def inverse_root(
    stack: paddle.Tensor, exponent: float, *, epsilon: float, pseudo: bool
) -> paddle.Tensor:
    r"""The powers :math:`A^{-e}` of symmetric positive semidefinite matrices.

    Args:
        stack: [n, s, s].
        exponent: :math:`e` > 0.
        epsilon: added to the eigenvalues, after the lowest, if below 0, was taken from all.
        pseudo: leave out eigenvalues that are zero within rounding instead (pseudo-inverse).

    Returns:
        [n, s, s] in the dtype of ``stack``.
    """
    values, vectors = eigh(stack)
    if pseudo:
        kept = values > NEGLIGIBLE * values[:, -1:]
        powers = paddle.where(kept, values, paddle.ones_like(values)) ** -exponent
        powers = _only(powers, kept)
    else:
        powers = (values - paddle.clip(values[:, :1], max=0.0) + epsilon) ** -exponent
    root = paddle.matmul(vectors * powers.unsqueeze(-2), vectors, transpose_y=True)
    return root.astype(stack.dtype)


def _only(tensor: paddle.Tensor, kept: paddle.Tensor) -> paddle.Tensor:
    """The tensor, with zeros elsewhere."""
    return paddle.where(kept, tensor, paddle.zeros_like(tensor))


def _columns(stack: paddle.Tensor, order: paddle.Tensor) -> paddle.Tensor:
    """Columns [n, r, s] in the order [n, s]."""
    return paddle.take_along_axis(stack, order.unsqueeze(-2), axis=-1)
