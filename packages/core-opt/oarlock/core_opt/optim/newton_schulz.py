"""Newton-Schulz: the orthogonal factor of a matrix by matrix products alone."""

from collections.abc import Sequence

import paddle

from . import _checks

#: Quintic of Jordan et al.: steepest at zero, singular values end in about [0.68, 1.14].
JORDAN = (3.4445, -4.7750, 2.0315)

#: Polar Express for singular values in [1e-3, 1]: each polynomial is the minimax one for the
#: interval that its predecessors leave. Inputs are divided by 1.02 more, against rounding.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)

#: Classical quintic, the Taylor choice: cubic convergence to 1 from all of (0, sqrt(7/3)).
CLASSIC = (15 / 8, -10 / 8, 3 / 8)

NAMES = ("jordan", "polar_express", "classic")
SAFETY = {"polar_express": 1.02}
EPSILON = 1e-7


def coefficients(name: str, steps: int) -> tuple[tuple[float, float, float], ...]:
    """The ``steps`` triples (a, b, c) of a named iteration.

    Polar Express has five of its own; further steps are classical, to which it tends.
    """
    _checks.choice("coefficients", name, NAMES)
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= 30:
        raise ValueError(f"ns_steps must be an integer in [1, 30], got {steps!r}.")
    if name == "polar_express":
        return (POLAR_EXPRESS + (CLASSIC,) * steps)[:steps]
    return ({"jordan": JORDAN, "classic": CLASSIC}[name],) * steps


def refuse_missing_bfloat16(place) -> None:
    """Raise ValueError if this Paddle has no bfloat16 product on this place."""
    one = paddle.ones([1, 1, 1], dtype="float32")._copy_to(place, True).astype("bfloat16")
    try:
        paddle.matmul(one, one) + one
    except RuntimeError as error:
        raise ValueError(
            f'ns_dtype="bfloat16" needs bfloat16 products, which this Paddle lacks on {place}; '
            "call oarlock.native.paddle.kernels.load() first, or leave ns_dtype at None."
        ) from error


def orthogonalize(
    matrix: paddle.Tensor,
    triples: Sequence[tuple[float, float, float]],
    *,
    safety: float = 1.0,
    scale: float = 1.0,
    dtype: str | None = None,
) -> paddle.Tensor:
    r"""Approximate the orthogonal factor :math:`UV^\top` of :math:`G = U\Sigma V^\top`.

    .. math::
        X_0 = G / (s\|G\|_F), \qquad X_{k+1} = a_k X_k + b_k X_k X_k^\top X_k
        + c_k (X_k X_k^\top)^2 X_k

    Singular vectors stay; each singular value goes through the odd polynomials
    :math:`p_k(\sigma) = a_k\sigma + b_k\sigma^3 + c_k\sigma^5`. Tall matrices are transposed,
    so that the square products have the smaller size.

    Args:
        matrix: [m, n] or a stack [batch, m, n]; zero gives zero.
        triples: (a, b, c) of each step.
        safety: :math:`s` >= 1.
        scale: factor on the result, folded into the last product.
        dtype: dtype of the products, default that of ``matrix``.

    Returns:
        A tensor of the shape and dtype of ``matrix``.

    Source: Jordan et al., kellerjordan.github.io/posts/muon; Amsel et al., 2505.16932.
    """
    stack = matrix.reshape([-1, *matrix.shape[-2:]])
    batch, rows, columns = stack.shape
    flat = stack.reshape([batch, 1, rows * columns])
    norm = paddle.sqrt(paddle.matmul(flat, flat, transpose_y=True))  # [batch, 1, 1]
    # Z = g X with g^4 = c spares the factor c: p(X) = (a + Z Z' (Z Z' + b / g^2)) X. Scaling a
    # bfloat16 matrix costs Paddle's CPU kernels as much as a product, so it is done only where g
    # changes, and on the smaller matrix.
    factors = [c**0.25 for _, _, c in triples]
    g = factors[0]
    z = stack * (g / (norm * safety + EPSILON))
    tall = rows > columns
    if tall:
        z = z.transpose([0, 2, 1]).contiguous()
    z = z if dtype is None else z.astype(dtype)
    size = min(rows, columns)
    identity = paddle.eye(size, dtype="float64" if z.dtype == paddle.float64 else "float32")
    if z.dtype == paddle.float32:  # adding equal shapes is ten times faster than broadcasting
        identity = identity.expand([batch, size, size]).contiguous()
    for (a, b, _), following in zip(triples, [*factors[1:], factors[-1]]):
        gram = paddle.matmul(z, z, transpose_y=True)  # [batch, size, size]
        inner = gram + identity.scale(b / g**2).astype(z.dtype)
        ratio = following / g
        if ratio != 1.0:
            inner = inner.scale(ratio)
        polynomial = paddle.matmul(gram, inner) + identity.scale(a * ratio).astype(z.dtype)
        z = paddle.matmul(polynomial, z)
        g = following
    z = z.astype(matrix.dtype).scale_(scale / g)
    if tall:
        z = z.transpose([0, 2, 1])
    return z.reshape(matrix.shape)
