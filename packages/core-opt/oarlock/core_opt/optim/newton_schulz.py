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
    norm = paddle.sqrt(paddle.square(matrix).sum(axis=[-2, -1], keepdim=True))
    x = matrix / (norm * safety + EPSILON)
    if dtype is not None:
        x = x.astype(dtype)
    tall = x.shape[-2] > x.shape[-1]
    swap = list(range(x.ndim - 2)) + [x.ndim - 1, x.ndim - 2]
    if tall:
        x = x.transpose(swap).contiguous()
    product = paddle.addmm if x.ndim == 2 else paddle.baddbmm
    for index, (a, b, c) in enumerate(triples):
        factor = scale if index == len(triples) - 1 else 1.0
        gram = paddle.matmul(x, x, transpose_y=True)  # [.., s, s], s = min(m, n)
        polynomial = product(gram, gram, gram, beta=b, alpha=c)
        x = product(x, polynomial, x, beta=a * factor, alpha=factor)
    if tall:
        x = x.transpose(swap)
    return x.astype(matrix.dtype)
