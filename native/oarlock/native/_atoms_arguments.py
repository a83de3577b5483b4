"""Calling the kernels of atoms and edges."""

import ctypes
import re
from typing import Any

from oarlock.native import _library
from oarlock.native._tensors import TensorList


def call(name: str, tensors: dict[str, Any], *rest: Any) -> None:
    """Call ``oarlock_atoms_<name>`` with one tensor for each name, then ``rest``."""
    try:
        lists = [TensorList(argument, [tensor]) for argument, tensor in tensors.items()]
        arguments = [ctypes.byref(one.argument) for one in lists]
        _library.load().call(f"oarlock_atoms_{name}", *arguments, *rest)
    except ValueError as error:
        # Kernels take lists, and speak of the one tensor of each as "x[0]".
        text = re.sub(rf"\b({'|'.join(tensors)})\[0\]", r"\1", str(error))
        raise ValueError(text) from None
