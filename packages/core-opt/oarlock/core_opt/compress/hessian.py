"""Factors of the damped second moment of a layer's inputs, H = E[x x^T]."""

import logging

import numpy as np

logger = logging.getLogger(__name__)
#: Damping grows by ten at each retry, up to this multiple of the mean diagonal.
MOST = 10.0


def damped(hessian: np.ndarray, damping: float, layer: str) -> tuple[np.ndarray, float]:
    """H + damping mean(diag H) I with the least damping of a series that has a Cholesky factor.

    Inputs that are always zero get a diagonal of 1 before: their weights have no effect on the data,
    and are rounded by themselves.

    Args:
        hessian: [in, in], symmetric.
        damping: first factor tried; a tenfold one after each failure, which is logged.
        layer: for messages.

    Returns:
        The damped matrix and the factor that served.

    Raises:
        ValueError: no factor up to 10 gives a positive definite matrix, or H is not finite.
    """
    if not np.isfinite(hessian).all():
        raise ValueError(f"the Hessian of {layer} holds NaN or Inf; look at the calibration data.")
    matrix = hessian.copy()
    dead = np.diagonal(matrix) <= 0
    matrix[dead, dead] = 1.0
    mean = float(np.mean(np.diagonal(matrix)))
    factor = damping
    while factor <= MOST:
        tried = matrix + factor * mean * np.eye(len(matrix))
        try:
            np.linalg.cholesky(tried)
        except np.linalg.LinAlgError:
            following = max(10 * factor, 1e-6)
            logger.warning(
                "%s: the Hessian is not positive definite at damping %g; trying %g",
                layer,
                factor,
                following,
            )
            factor = following
        else:
            return tried, factor
    raise ValueError(
        f"the Hessian of {layer} is not positive definite even at damping {MOST:g}; "
        "give more calibration data, or ignore the layer."
    )


def inverse_factor(matrix: np.ndarray) -> np.ndarray:
    """Upper triangular U with H^-1 = U^T U: row i holds the inverse after i inputs are fixed.

    U_ii^2 is the first diagonal element of the inverse of H without its first i rows and columns, and
    -U_ij / U_ii is what an error of one in the weight i asks of the weight j > i.
    """
    return np.linalg.cholesky(np.linalg.inv(matrix)).T


def error(weight_error: np.ndarray, hessian: np.ndarray) -> float:
    """tr(E^T H E): mean squared error of the outputs, summed over them."""
    return float(np.einsum("io,io->", weight_error, hessian @ weight_error))
