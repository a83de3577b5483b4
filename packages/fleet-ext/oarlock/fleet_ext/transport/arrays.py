"""NumPy views of what users hand over: arrays, and Paddle's tensors on the CPU, without a copy."""

from functools import cache
from math import prod
from typing import Any

import ml_dtypes
import numpy as np

_NAMES = {"bfloat16": ml_dtypes.bfloat16, "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
          "float8_e5m2": ml_dtypes.float8_e5m2}  # fmt: skip


def view_of(given: Any, argument: str = "array") -> np.ndarray:
    """An array that shares its memory with what was given.

    Args:
        given: a NumPy array, or a dense Paddle tensor on the CPU; contiguous.

    Raises:
        ValueError: it cannot be seen without a copy.
    """
    if isinstance(given, np.ndarray):
        if not given.flags.c_contiguous or not given.flags.writeable:
            raise ValueError(f"{argument} must be contiguous and writeable: pass a copy of it")
        if given.dtype.hasobject:
            raise ValueError(
                f"{argument} has objects in it: use all_gather_object for what is no number"
            )
        return given
    if not _is_paddle(given):
        raise ValueError(
            f"{argument} must be a NumPy array or a Paddle tensor, not {type(given).__name__}"
        )
    if not given.place.is_cpu_place():
        raise ValueError(
            f"{argument} is on {given.place}: this transport moves what is in main memory; use NCCL's"
        )
    if not given.is_contiguous():
        raise ValueError(f"{argument} must be contiguous: pass {argument}.contiguous()")
    dtype, shape = _dtype_of(given.dtype), tuple(given.shape)
    count = prod(shape)
    if count == 0:
        return np.empty(shape, dtype)
    memory = np.asarray(_Memory(given, count * dtype.itemsize))
    return memory.view(dtype).reshape(shape)


@cache
def _dtype_of(dtype: Any) -> np.dtype:
    name = str(dtype).rpartition(".")[2]
    return np.dtype(_NAMES.get(name, name))


class _Memory:
    """A tensor's bytes, as NumPy asks for them; the tensor lives as long as the array."""

    def __init__(self, tensor: Any, count: int) -> None:
        self._tensor = tensor
        self.__array_interface__ = {
            "version": 3,
            "shape": (count,),
            "typestr": "|u1",
            "data": (tensor.data_ptr(), False),
        }


def _is_paddle(given: Any) -> bool:
    return type(given).__module__.split(".")[0] == "paddle" and hasattr(given, "data_ptr")


def as_bytes(array: np.ndarray) -> memoryview:
    """The memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data
