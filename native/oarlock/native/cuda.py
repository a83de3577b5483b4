"""Kernels for NVIDIA's GPUs: a library of its own, loaded when the first GPU tensor comes.

>>> from oarlock.native import cuda
>>> cuda.available(), cuda.why_not()
(False, 'liboarlock_cuda.so is not in this build: ...')
"""

import ctypes
import functools

from oarlock.native import _abi, _library

LIBRARY = "liboarlock_cuda.so"


@functools.cache
def load() -> _library.Library:
    """The CUDA library, with at least one GPU behind it.

    Raises:
        LibraryUnavailable: it was not built, or there is no GPU or no driver for it.
    """
    path = _library.find(LIBRARY)
    if path is None:
        raise _library.LibraryUnavailable(
            f"{LIBRARY} is not in this build: build oarlock-native where nvcc is "
            "(pip install -C cmake.define.OARLOCK_CUDA=ON), or pass CPU tensors"
        )
    library = _library.Library(path)
    count = ctypes.c_int32(0)
    status = library.functions.oarlock_cuda_devices(ctypes.byref(count))
    if status != _abi.OK or not count.value:
        reason = library.last_error() if status != _abi.OK else "no GPU"
        raise _library.LibraryUnavailable(f"{LIBRARY} finds no GPU to run on: {reason}")
    return library


def available() -> bool:
    """Whether kernels can run on a GPU here."""
    return why_not() is None


def why_not() -> str | None:
    """Why kernels cannot run on a GPU here, and what would help; None if they can."""
    try:
        load()
    except _library.LibraryUnavailable as error:
        return str(error)
    return None


def library_for(name: str, stream: int | None) -> _library.Library:
    """The library, set to run the entry point ``name`` on ``stream`` (None: the default one).

    Raises:
        ValueError: that kernel has no CUDA version.
        LibraryUnavailable: as ``load``.
    """
    library = load()
    if not hasattr(library.functions, name):
        raise ValueError(f"{name} has no kernel for GPUs yet; pass CPU tensors")
    library.functions.oarlock_cuda_set_stream(ctypes.c_void_p(stream))
    return library
