"""Reading list arguments: Paddle and torch tensors, NumPy arrays, anything with ``__dlpack__``.

Nothing is copied and nothing is cached: each call reads address, type, shape and strides anew. Types
with ``__dlpack_c_exchange_api__`` (Paddle, torch) are read in one C call for a whole list.
"""

import ctypes
import functools
from array import array
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from oarlock.native import _abi, _library

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# DLPack's type code of NumPy's kinds.
_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_DENSE = "must be dense: use its to_dense() first"
_EXCHANGE, _CAPSULE, _VERSIONED = b"dlpack_exchange_api", b"dltensor", b"dltensor_versioned"

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]


class TensorList:
    """A list argument, read. Keep it while a kernel uses it."""

    __slots__ = ("name", "owners", "items", "argument", "api")

    def __init__(self, name: str, tensors: Sequence) -> None:
        """Read ``tensors``.

        Args:
            name: what messages call the argument.
            tensors: list or tuple of tensors.

        Raises:
            ValueError: not a list, or an item is no tensor that can be read.
        """
        if not isinstance(tensors, (list, tuple)):
            raise ValueError(
                f"{name} must be a list or tuple of tensors, not {type(tensors).__name__}"
            )
        tensors = list(tensors)  # keeps every tensor alive even if the caller's list changes
        count = len(tensors)
        self.name = name
        self.api: int | None = None  # address of the exchange API that read the list
        self.owners: list[Any] = [tensors]
        self.items = (_abi.Tensor * count)()
        kinds = set(map(type, tensors))
        apis = {_exchange(kind) for kind in kinds}
        if count and len(apis) == 1 and None not in apis:
            self.api = apis.pop()
            self._read_objects(tensors, kinds)
        else:
            for index, tensor in enumerate(tensors):
                self._read_one(index, tensor)
        self.argument = _abi.Tensors(name.encode(), self.items, count)

    def stream(self) -> int | None:
        """The stream on which the exporter works on the first tensor's GPU; None for the default."""
        if self.api is None:
            return None
        function = _library.load().functions.oarlock_current_stream
        function.restype = ctypes.c_void_p
        first = self.items[0]
        return function(ctypes.c_void_p(self.api), first.device, first.device_id)

    def _read_objects(self, tensors: Sequence, kinds: set[type]) -> None:
        # Paddle's exchange function takes sparse and distributed tensors for dense ones.
        checks: set[Any] = {getattr(kind, "is_dense", None) for kind in kinds} - {None}
        for is_dense in checks:
            for index, dense in enumerate(map(is_dense, tensors)):
                if not dense:
                    raise ValueError(f"{self.name}[{index}] {_DENSE}")
        addresses = array("Q", map(id, tensors))  # of the objects, as CPython's id() is
        count = len(tensors)
        done = _reader()(self.api, addresses.buffer_info()[0], count, self.items)
        if done != count:
            raise ValueError(f"{self.name}[{done}] {_library.load().last_error()}")

    def _read_one(self, index: int, tensor: Any) -> None:
        item = self.items[index]
        if isinstance(tensor, np.ndarray):
            _read_array(item, tensor)
            return
        if not hasattr(tensor, "__dlpack__"):
            raise ValueError(
                f"{self.name}[{index}] must be a Paddle tensor, a NumPy array or have __dlpack__, "
                f"not {type(tensor).__name__}"
            )
        if not getattr(tensor, "is_dense", _yes)():
            raise ValueError(f"{self.name}[{index}] {_DENSE}")
        capsule = _capsule(tensor)
        self.owners.append(capsule)
        versioned = bool(_is_valid(capsule, _VERSIONED))
        managed = _pointer(capsule, _VERSIONED if versioned else _CAPSULE)
        library = _library.load()
        status = library.functions.oarlock_read_managed(
            ctypes.c_void_p(managed), int(versioned), ctypes.byref(item)
        )
        if status != _abi.OK:
            raise ValueError(f"{self.name}[{index}] {library.last_error()}")


def _yes() -> bool:
    return True


def _read_array(item: _abi.Tensor, values: np.ndarray) -> None:
    dtype, shape = values.dtype, values.shape
    if len(shape) > _abi.MAX_NDIM:
        shape = (values.size,)
    item.data = values.__array_interface__["data"][0]
    item.count = values.size
    if dtype == BFLOAT16:
        item.dtype = 4 << 8 | 16
    elif dtype.kind in _CODES and dtype.isnative:
        item.dtype = _CODES[dtype.kind] << 8 | dtype.itemsize * 8
    else:
        item.dtype = -1
    item.device = _abi.CPU
    item.ndim = len(shape)
    item.shape[: len(shape)] = shape
    flags = values.flags
    contiguous = flags.c_contiguous or not values.size
    item.flags = contiguous * _abi.CONTIGUOUS | (not flags.writeable) * _abi.READ_ONLY


def _capsule(tensor: Any) -> Any:
    """The tensor's DLPack capsule, of version 1 where the exporter knows it."""
    try:
        return tensor.__dlpack__(max_version=(1, 0))
    except TypeError:  # an exporter from before version 1
        return tensor.__dlpack__()


def _exchange(kind: type) -> int | None:
    """Address of the exchange API of a type, if it has one that we can use."""
    capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    return None if capsule is None else _usable(_pointer(capsule, _EXCHANGE))


@functools.cache
def _usable(address: int) -> int | None:
    """The address, if we can use what is there. Such tables live as long as the process."""
    usable = _library.load().functions.oarlock_exchange_usable(ctypes.c_void_p(address))
    return address if usable else None


@functools.cache
def _reader() -> Any:
    """``oarlock_read_objects``, called with the GIL held."""
    function = ctypes.PyDLL(str(_library.load().path)).oarlock_read_objects
    function.restype = ctypes.c_int64
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    return function
