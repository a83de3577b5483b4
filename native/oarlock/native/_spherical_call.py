"""Calling the entry points for features of degrees."""

import ctypes
import re
from typing import Any

from oarlock.native import _library
from oarlock.native import threads as _threads
from oarlock.native._tensors import TensorList


def run(name: str, tensors: dict[str, Any], *rest: Any, threads: int | None) -> None:
    """Call ``oarlock_atoms_<name>`` with one list for each name, then ``rest`` and threads.

    A value is a list of tensors, one tensor, or None for no tensor.
    """
    team = ctypes.c_int32(_threads.count(threads))
    single = [name for name, value in tensors.items() if not isinstance(value, (list, tuple))]
    try:
        lists = [
            TensorList(
                argument,
                value if isinstance(value, (list, tuple)) else [] if value is None else [value],
            )
            for argument, value in tensors.items()
        ]
        arguments = [ctypes.byref(one.argument) for one in lists]
        _library.load().call(f"oarlock_atoms_{name}", *arguments, *rest, team)
    except ValueError as error:
        # Kernels take lists, and speak of the one tensor of each as "x[0]".
        text = re.sub(rf"\b({'|'.join(single)})\[0\]", r"\1", str(error)) if single else str(error)
        raise ValueError(text) from None
