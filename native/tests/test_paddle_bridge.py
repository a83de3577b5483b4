"""Paddle tensors and NumPy arrays share memory, both ways."""

import gc

import ml_dtypes
import numpy as np
import paddle
import pytest
from paddle.utils import dlpack

from oarlock.native.paddle import as_numpy, from_numpy
from oarlock.native.paddle.bridge import _DTYPES

PAIRS = list(_DTYPES.items())
SHAPES = [(), (1,), (7,), (2, 3, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("ours", "numpys"), PAIRS)
def test_tensor_to_array(ours, numpys, shape):
    tensor = paddle.ones(shape).astype(ours)
    array = as_numpy(tensor)
    assert array.dtype == numpys and array.shape == shape and array.flags.writeable
    assert array.ctypes.data == tensor.data_ptr()
    array[...] = 0
    assert not tensor.astype("float32").any()
    tensor.set_value(paddle.ones(shape).astype(ours))
    assert (array == numpys.type(1)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("ours", "numpys"), PAIRS)
def test_array_to_tensor(ours, numpys, shape):
    array = np.ones(shape, numpys)
    tensor = from_numpy(array)
    assert tensor.dtype == ours and tuple(tensor.shape) == shape and tensor.stop_gradient
    assert tensor.data_ptr() == array.ctypes.data
    array[...] = 0
    assert not tensor.astype("float32").any()
    tensor.set_value(paddle.ones(shape).astype(ours))
    assert (array == numpys.type(1)).all()


def test_bfloat16_bits():
    values = np.array([1.0, -2.5, 3e38, np.inf, 1e-40], ml_dtypes.bfloat16)
    tensor = from_numpy(values)
    assert tensor.dtype == paddle.bfloat16
    assert tensor.astype("float32").numpy().tolist() == values.astype("f").tolist()
    assert as_numpy(tensor).tobytes() == values.tobytes()


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3)])
def test_empty(shape):
    array = as_numpy(paddle.zeros(shape))
    assert array.shape == shape and array.dtype == np.float32
    assert tuple(from_numpy(np.zeros(shape, np.float32)).shape) == shape


def test_memory_outlives_its_owner():
    array = as_numpy(paddle.full([1 << 20], 3.0))
    tensor = from_numpy(np.full(1 << 20, 4.0, np.float32))
    gc.collect()
    junk = [paddle.zeros([1 << 20]) for _ in range(4)] + [np.zeros(1 << 20, np.float32)]
    assert len(junk) == 5 and (array == 3).all() and bool((tensor == 4).all())


def test_through_dlpack():
    array = np.ones(3, np.float32)
    tensor = dlpack.from_dlpack(array)
    array[0] = 5
    assert tensor.tolist() == [5, 1, 1]
    as_numpy(tensor)[1] = 7
    assert array.tolist() == [5, 7, 1]
    assert np.from_dlpack(tensor).ctypes.data == array.ctypes.data


def test_outside_the_graph():
    """Parameters can be shared and updated in place after backward; their graph is untouched."""
    weight = paddle.create_parameter([2, 2], "float32")
    weight.set_value(paddle.ones([2, 2]))
    loss = (weight * 3).sum()
    loss.backward()
    as_numpy(weight)[:] -= 0.5 * as_numpy(weight.grad)
    assert weight.tolist() == [[-0.5, -0.5], [-0.5, -0.5]]
    assert not weight.stop_gradient and weight.is_leaf
    assert (weight * 1).sum().item() == -2


def test_offset_view_is_shared():
    base = paddle.arange(12, dtype="float32").reshape([3, 4])
    row = base[1]
    as_numpy(row)[0] = 40
    assert base[1, 0].item() == 40


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (paddle.ones([2, 3]).t(), "contiguous"),
        (paddle.ones([4, 4])[:, 1], "contiguous"),
        (np.ones(3), "paddle.Tensor"),
        (paddle.ones([2]).astype("float8_e4m3fn"), "cast it"),
        (paddle.sparse.sparse_coo_tensor([[0, 1], [1, 0]], [1.0, 2.0], [2, 2]), "dense"),
    ],
    ids=["transposed", "column", "array", "float8", "sparse"],
)
def test_tensors_refused(tensor, message):
    with pytest.raises(ValueError, match=message):
        as_numpy(tensor)


def _read_only():
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 3), "f").T, "contiguous"),
        (np.ones((4, 4), "f")[:, 1], "contiguous"),
        (_read_only(), "writable"),
        (np.ones(3, np.uint16), "ml_dtypes.bfloat16"),
        (np.ones(3, ">f4"), "cannot be shared"),
        (np.array(["a"]), "cannot be shared"),
        ([1.0], "numpy.ndarray"),
    ],
    ids=["transposed", "column", "read-only", "uint16", "big-endian", "text", "list"],
)
def test_arrays_refused(array, message):
    with pytest.raises(ValueError, match=message):
        from_numpy(array)
