"""Calling the kernels of atoms and edges."""

import ctypes
import re
from collections.abc import Sequence
from typing import Any

from oarlock.native import _abi, _library
from oarlock.native._tensors import TensorList

_TENSOR, _LIST = ctypes.sizeof(_abi.Tensor), ctypes.sizeof(_abi.Tensors)
_ITEMS = _abi.Tensors.items.offset


class Call:
    """An entry point ``oarlock_atoms_<name>`` that takes lists of one tensor, then other arguments.

    Calls with small tensors are frequent, so all tensors of a call are read together, and what can be
    prepared is.
    """

    def __init__(self, name: str, arguments: str) -> None:
        self.name = f"oarlock_atoms_{name}"
        self.arguments = arguments.split()
        self._names = [argument.encode() for argument in self.arguments]
        self._pattern = re.compile(rf"\b({'|'.join(self.arguments)})\[0\]")
        self._all = re.compile(r"\btensors\[(\d+)\]")

    def __call__(self, tensors: Sequence[Any], *rest: Any, before: Sequence[Any] = ()) -> None:
        """Args:
        tensors: one for each argument; None for an empty list.
        rest: further arguments, as ctypes takes them.
        before: arguments that come before the tensors.
        """
        given = [tensor for tensor in tensors if tensor is not None]
        try:
            read = TensorList("tensors", given)
            lists = (_abi.Tensors * len(tensors))()
            here, item = ctypes.addressof(lists), ctypes.addressof(read.items)
            addresses = []
            for index, tensor in enumerate(tensors):
                one = lists[index]
                one.name = self._names[index]
                if tensor is not None:
                    ctypes.c_void_p.from_address(here + index * _LIST + _ITEMS).value = item
                    one.count = 1
                    item += _TENSOR
                addresses.append(ctypes.c_void_p(here + index * _LIST))
            _library.load().call(self.name, *before, *addresses, *rest)
        except ValueError as error:
            raise ValueError(self._plain(str(error), tensors)) from None

    def _plain(self, message: str, tensors: Sequence[Any]) -> str:
        """Kernels take lists, and speak of the one tensor of each as ``x[0]``."""
        names = [name for name, one in zip(self.arguments, tensors, strict=True) if one is not None]
        message = self._all.sub(lambda match: names[int(match[1])], message)
        return self._pattern.sub(r"\1", message)
