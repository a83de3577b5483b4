"""Paddle tensors and NumPy arrays over the same memory.

Both ways nothing is copied, and either side keeps the memory alive. Writing through the array is
writing the tensor, behind autograd's back: Paddle does not count it as an in-place change, so do
not write to a tensor between a forward pass that saved it and its backward pass. Updating
parameters after ``backward()``, as an optimiser does, is safe. What was computed from a tensor
before a write keeps its old value.

Other libraries share memory with Paddle through DLPack: ``paddle.utils.dlpack.from_dlpack(x)`` for
a tensor over ``x``'s memory, and their ``from_dlpack(tensor)`` the other way. NumPy's own
``from_dlpack`` gives read-only arrays, and knows no bfloat16; hence this module.
"""

import ml_dtypes
import numpy as np
import paddle

_DTYPES = {
    paddle.bool: np.dtype(np.bool_),
    paddle.uint8: np.dtype(np.uint8),
    paddle.int8: np.dtype(np.int8),
    paddle.int16: np.dtype(np.int16),
    paddle.int32: np.dtype(np.int32),
    paddle.int64: np.dtype(np.int64),
    paddle.float16: np.dtype(np.float16),
    paddle.bfloat16: np.dtype(ml_dtypes.bfloat16),
    paddle.float32: np.dtype(np.float32),
    paddle.float64: np.dtype(np.float64),
    paddle.complex64: np.dtype(np.complex64),
    paddle.complex128: np.dtype(np.complex128),
}
_SHARED = frozenset(_DTYPES.values())


class _Memory:
    """A tensor's memory as NumPy's array interface; holds the tensor while an array uses it."""

    def __init__(self, tensor: paddle.Tensor, dtype: np.dtype) -> None:
        self.tensor = tensor
        self.__array_interface__ = {
            "version": 3,
            "shape": tuple(tensor.shape),
            # NumPy's interface knows no bfloat16: raw bytes, viewed as the dtype afterwards.
            "typestr": f"|V{dtype.itemsize}",
            "data": (tensor.data_ptr(), False),
        }


def as_numpy(tensor: paddle.Tensor) -> np.ndarray:
    """A writable array over the tensor's own memory; bfloat16 as ``ml_dtypes.bfloat16``.

    Args:
        tensor: dense, contiguous, on the CPU; any shape. ``stop_gradient`` does not matter: the
            array is outside the graph.

    Returns:
        Array of the tensor's shape. It keeps the memory alive, and shows the tensor's values
        until the tensor is given other memory.

    Raises:
        ValueError: not a tensor as above, or of a type NumPy lacks.
    """
    if not isinstance(tensor, paddle.Tensor):
        raise ValueError(f"tensor must be a paddle.Tensor, not {type(tensor).__name__}")
    if not tensor.is_dense():
        raise ValueError("tensor must be dense: use tensor.to_dense() first")
    if not tensor.place.is_cpu_place():
        raise ValueError(f"tensor must be on the CPU, not {tensor.place}: use tensor.cpu() first")
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise ValueError(f"tensor of {tensor.dtype} cannot be shared with NumPy: cast it first")
    if tensor.size == 0:
        return np.empty(tuple(tensor.shape), dtype)
    if not tensor.is_contiguous():
        raise ValueError(
            f"tensor must be contiguous, not of strides {tensor.strides} for shape "
            f"{tuple(tensor.shape)}: share its base, or a copy made by paddle.assign"
        )
    return np.asarray(_Memory(tensor.detach(), dtype)).view(dtype)


def from_numpy(array: np.ndarray) -> paddle.Tensor:
    """A CPU tensor over the array's own memory; the array lives at least as long.

    Args:
        array: writable, C-contiguous, of a type Paddle has; ``ml_dtypes.bfloat16`` included.

    Returns:
        Tensor of the array's shape, with ``stop_gradient=True``.

    Raises:
        ValueError: not an array as above.
    """
    if not isinstance(array, np.ndarray):
        raise ValueError(f"array must be a numpy.ndarray, not {type(array).__name__}")
    if array.dtype not in _SHARED or not array.dtype.isnative:
        hint = ": view it as ml_dtypes.bfloat16 if it is that" if array.dtype == np.uint16 else ""
        raise ValueError(f"array of {array.dtype} cannot be shared with Paddle{hint}")
    if not array.flags.c_contiguous or not array.flags.aligned:
        raise ValueError("array must be C-contiguous and aligned: use numpy.ascontiguousarray")
    if not array.flags.writeable:
        raise ValueError("array must be writable, since Paddle may write to it: use array.copy()")
    # Paddle takes NumPy's uint16 for bfloat16.
    plain = array.view(np.uint16) if array.dtype == ml_dtypes.bfloat16 else array
    return paddle.base.core.eager.Tensor(
        plain, paddle.CPUPlace(), False, True, paddle.utils.unique_name.generate("shared"), True
    )
