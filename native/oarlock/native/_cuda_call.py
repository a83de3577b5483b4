"""Calling entry points that only the CUDA library has."""

import ctypes
from typing import Any

from oarlock.native import _abi, _lowp_arguments, cuda
from oarlock.native._tensors import TensorList


def call(name: str, tensors: dict[str, Any], *rest) -> None:
    """Run ``oarlock_cuda_<name>`` on tensors by the names of its arguments; None for null.

    Raises:
        ValueError: a tensor is not on a GPU, or the kernel refused an argument.
        LibraryUnavailable: no kernel can run on a GPU here.
    """
    lists = [_lowp_arguments.read(key, tensor) for key, tensor in tensors.items()]
    arguments = [None if one is None else ctypes.byref(one.argument) for one in lists]
    first = lists[0]
    assert first is not None
    library = cuda.library_for(f"oarlock_cuda_{name}", _on_gpu(first).stream())
    try:
        library.call(f"oarlock_cuda_{name}", *arguments, *rest)
    except ValueError as error:  # kernels take lists, and speak of the one tensor of each as "x[0]"
        raise ValueError(str(error).replace("[0] ", " ")) from None


def size(name: str, *arguments) -> int:
    """What ``oarlock_cuda_<name>`` counts.

    Raises:
        ValueError: it refused an argument.
    """
    library = cuda.load()
    function = getattr(library.functions, f"oarlock_cuda_{name}")
    function.restype = ctypes.c_int64
    found = function(*arguments)
    if found < 0:
        raise ValueError(library.last_error())
    return found


def empty(like: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Memory beside a tensor, of its own library."""
    found = _lowp_arguments.read("like", like)
    assert found is not None
    return _lowp_arguments.empty(like, _on_gpu(found), shape, dtype)


def _on_gpu(found: TensorList) -> TensorList:
    if found.items[0].device != _abi.CUDA:
        raise ValueError(f"{found.name} must be on a GPU; move it, or use the functions for CPUs")
    return found
