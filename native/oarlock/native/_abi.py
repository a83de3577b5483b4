"""The C ABI of the kernel libraries, mirroring ``src/core/abi.h``."""

import ctypes

ABI_VERSION = 1
OK, BAD_ARGUMENT, OUT_OF_MEMORY, INTERNAL, DISCONNECTED = range(5)
CONTIGUOUS, READ_ONLY, COPIED = 1, 2, 4
CPU, CUDA = 1, 2  # device types, as in DLPack
MAX_NDIM = 12


class Tensor(ctypes.Structure):
    """``oarlock_tensor``: memory, type and shape of one tensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("dtype", ctypes.c_int32),
        ("device", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int16),
        ("flags", ctypes.c_int16),
        ("shape", ctypes.c_int64 * MAX_NDIM),
    ]


class Tensors(ctypes.Structure):
    """``oarlock_tensors``: a list argument with the name that messages call it by."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("items", ctypes.POINTER(Tensor)),
        ("count", ctypes.c_int64),
    ]
