"""Options of the sparse entry points, mirroring ``src/sparse/options.h``."""

import ctypes


class Options(ctypes.Structure):
    _fields_ = [
        ("transpose", ctypes.c_int32),
        ("transpose_dense", ctypes.c_int32),
        ("transpose_out", ctypes.c_int32),
        ("group", ctypes.c_int32),
        ("above", ctypes.c_int32),
        ("least", ctypes.c_float),
    ]
