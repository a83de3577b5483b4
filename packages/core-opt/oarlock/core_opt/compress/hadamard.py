"""Hadamard matrices of powers of two, and products with block-diagonal ones."""

import functools

import numpy as np
import paddle

LARGEST = 64  # factors of a product; larger ones cost more arithmetic than a second product


@functools.cache
def matrix(size: int) -> np.ndarray:
    """Sylvester's matrix over sqrt(size), symmetric and orthogonal, float64.

    Args:
        size: a power of two.
    """
    found = np.ones((1, 1))
    while len(found) < size:
        found = np.block([[found, found], [found, -found]])
    return found / np.sqrt(size)


def largest_block(size: int) -> int:
    """The largest power of two that divides ``size``."""
    return size & -size


def signs(size: int, seed: int) -> np.ndarray:
    """Random signs [size], float32."""
    return np.random.default_rng(seed).choice(np.array([-1.0, 1.0], np.float32), size)


def rotate_rows(weight: np.ndarray, sign: np.ndarray, block: int) -> np.ndarray:
    """H D W for a matrix [in, out], with the block-diagonal H and D = diag(sign).

    x D H is then the input that belongs to it: (x D H)(H D W) = x W.
    """
    blocks = (sign[:, None] * weight).reshape(-1, block, weight.shape[1])
    return np.matmul(matrix(block), blocks).reshape(weight.shape)


def rotate_hessian(hessian: np.ndarray, sign: np.ndarray, block: int) -> np.ndarray:
    """H D X D H for the second moment X [in, in] of the inputs."""
    half = rotate_rows(hessian, sign, block)
    return rotate_rows(half.T, sign, block).T


def rotate_input(x: paddle.Tensor, sign: paddle.Tensor, block: int) -> paddle.Tensor:
    """x D H along the last axis, as products with Kronecker factors of H."""
    shape, left, inner = x.shape, block, 1
    out = x * sign.astype(x.dtype)
    while left > 1:
        factor = min(left, LARGEST)
        h = paddle.to_tensor(matrix(factor).astype("float32")).astype(x.dtype)
        if inner == 1:
            out = paddle.matmul(out.reshape([-1, factor]), h)
        else:  # [.., left / factor, factor, inner]
            out = paddle.matmul(h, out.reshape([-1, factor, inner]))
        inner *= factor
        left //= factor
    return out.reshape(shape)
