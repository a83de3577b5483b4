"""Checking the arguments of the sparse kernels, and calling them."""

import ctypes
import re
from typing import Any

from oarlock.native import _library, _sparse_abi
from oarlock.native import threads as _threads
from oarlock.native._tensors import TensorList


def flag(name: str, value: bool) -> int:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return int(value)


def options(**fields: Any) -> Any:
    """``Options`` by reference."""
    return ctypes.byref(_sparse_abi.Options(**fields))


def run(name: str, tensors: dict[str, Any], *rest: Any, threads: int | None) -> None:
    """Call ``oarlock_sparse_<name>`` with one tensor for each name, then ``rest`` and threads."""
    team = _threads.count(threads)
    call(name, tensors, *rest, team)


def call(name: str, tensors: dict[str, Any], *rest: Any) -> None:
    try:
        lists = [TensorList(argument, [tensor]) for argument, tensor in tensors.items()]
        arguments = [ctypes.byref(one.argument) for one in lists]
        _library.load().call(f"oarlock_sparse_{name}", *arguments, *rest)
    except ValueError as error:
        # Kernels take lists, and speak of the one tensor of each as "x[0]".
        text = re.sub(rf"\b({'|'.join(tensors)})\[0\]", r"\1", str(error))
        raise ValueError(text) from None
