"""Entropies and effective ranks."""

import numpy as np


def exponent_entropy(weight: np.ndarray) -> float:
    """Entropy in bits of the float32 (and bfloat16) exponents of the weights.

    A lossless code of bfloat16 needs 8 bits for sign and mantissa and about this for the exponent.
    Source: DFloat11 2504.11651.
    """
    bits = np.ascontiguousarray(weight, np.float32).view(np.uint32)
    counts = np.bincount((bits.ravel() >> 23) & 0xFF, minlength=256)
    share = counts[counts > 0] / counts.sum()
    return max(0.0, float(-(share * np.log2(share)).sum()))


def participation_ratio(eigenvalues: np.ndarray) -> float:
    """(sum of eigenvalues)^2 / sum of their squares: 1 for rank one, n for n equal ones."""
    values = np.maximum(eigenvalues, 0)
    squares = np.square(values).sum()
    return float(values.sum() ** 2 / squares) if squares else 0.0


def effective_rank(weight: np.ndarray) -> float:
    """Participation ratio of the squared singular values."""
    gram = weight.T @ weight if weight.shape[0] > weight.shape[1] else weight @ weight.T
    return participation_ratio(np.linalg.eigvalsh(gram))


def spectral_entropy(covariance: np.ndarray) -> float:
    """Entropy in nats of the eigenvalues of a covariance, scaled to the sum 1; ln n at most."""
    values = np.maximum(np.linalg.eigvalsh(covariance), 0)
    share = values[values > 0] / values.sum() if values.sum() else np.ones(1)
    return max(0.0, float(-(share * np.log(share)).sum()))


def head_similarity(moment: np.ndarray, heads: int) -> np.ndarray:
    """Largest similarity of each head's outputs with another's, [heads] in 0 .. 1.

    The RV coefficient |C_gh|^2 / (|C_gg| |C_hh|) with Frobenius norms of the blocks of the second moment [H K, H K]: 1 for
    heads whose outputs are rotations of each other.
    """
    size = len(moment) // heads
    blocks = moment.reshape(heads, size, heads, size)
    norms = np.sqrt(np.square(blocks).sum((1, 3)))  # [heads, heads]
    own = np.sqrt(np.outer(norms.diagonal(), norms.diagonal()))
    similarity = np.square(np.divide(norms, own, out=np.zeros_like(norms), where=own > 0))
    np.fill_diagonal(similarity, 0)
    return np.clip(similarity.max(1), 0, 1) if heads > 1 else np.zeros(1)
