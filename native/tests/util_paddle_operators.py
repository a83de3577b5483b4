"""Operators of Paddle in bfloat16, compared with float32 on widened operands."""

import zlib

import ml_dtypes
import numpy as np
import paddle

from oarlock.native.paddle import as_numpy, from_numpy

BF16 = ml_dtypes.bfloat16
STEP = 2.0**-7  # of a bfloat16, relative, at most
SHAPES = [(1,), (7,), (33,), (5, 64), (3, 4, 17), (2, 3, 300), (0, 4), (20000,)]


def random(shape, name="", low=None, high=None):
    rng = np.random.default_rng(zlib.crc32(f"{name}{shape}".encode()))
    values = rng.standard_normal(shape) if low is None else rng.uniform(low, high, shape)
    return np.asarray(values, np.float32).astype(BF16)


def tensor(array, dtype):
    """A leaf of the type with the values of a bfloat16 array, or integers as they are."""
    if array.dtype != BF16:
        return paddle.to_tensor(array)
    if dtype == "bfloat16":
        result = from_numpy(np.ascontiguousarray(array).reshape(array.shape).copy())
    else:
        result = paddle.to_tensor(array.astype(np.float32))
    result.stop_gradient = False
    return result


def outputs(result):
    return list(result) if isinstance(result, (list, tuple)) else [result]


def evaluate(function, arrays, dtype):
    """Results and gradients, with upstream gradients that are the same bfloat16s for both types."""
    leaves = [tensor(array, dtype) for array in arrays]
    results = [out for out in outputs(function(*leaves)) if isinstance(out, paddle.Tensor)]
    reached = [out for out in results if not out.stop_gradient]
    upstream = [tensor(random(tuple(out.shape), "upstream"), dtype) for out in reached]
    upstream = [up.astype(out.dtype).detach() for up, out in zip(upstream, reached, strict=True)]
    inputs = [leaf for leaf in leaves if not leaf.stop_gradient]
    gradients = []
    if reached and inputs:
        gradients = paddle.grad(reached, inputs, upstream, allow_unused=True)
    return results, [gradient for gradient in gradients if gradient is not None]


def compare(function, arrays, exactly):
    got, expected = (evaluate(function, arrays, dtype) for dtype in ("bfloat16", "float32"))
    assert len(got[0]) == len(expected[0]) and len(got[1]) == len(expected[1])
    for ours, theirs in zip(got[0] + got[1], expected[0] + expected[1], strict=True):
        assert tuple(ours.shape) == tuple(theirs.shape)
        if theirs.dtype != paddle.float32:
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours.numpy(), theirs.numpy())
            continue
        if ours.dtype == paddle.float32:  # statistics and the like
            assert np.allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-5, equal_nan=True)
            continue
        assert ours.dtype == paddle.bfloat16
        ours, theirs = as_numpy(ours.contiguous()), theirs.numpy()
        if exactly:
            with np.errstate(all="ignore"):
                rounded = theirs.astype(BF16)
            same = ours.view(np.uint16) == rounded.view(np.uint16)
            assert np.all(same | (np.isnan(ours.astype("f")) & np.isnan(theirs)))
        else:
            near(ours.astype(np.float32), theirs)


def near(ours, theirs, absolute=2e-5):
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    infinite = np.isinf(theirs)
    assert np.array_equal(ours[infinite], theirs[infinite])
    finite = np.isfinite(theirs) & np.isfinite(ours)
    error = np.abs(ours - theirs)[finite]
    assert np.all(error <= STEP * np.abs(theirs[finite]) + absolute), float(error.max())
