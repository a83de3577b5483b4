"""Options of the codec entry points, mirroring ``src/codec/options.h``."""

import ctypes


class Options(ctypes.Structure):
    _fields_ = [
        ("block", ctypes.c_int64),
        ("k", ctypes.c_int64),
        ("most", ctypes.c_int64),
        ("seed", ctypes.c_uint64),
        ("eps", ctypes.c_double),
        ("bits", ctypes.c_int32),
        ("stochastic", ctypes.c_int32),
        ("keep", ctypes.c_int32),
        ("inverse", ctypes.c_int32),
        ("weight", ctypes.c_float),
        ("decay", ctypes.c_float),
        ("threshold", ctypes.c_float),
    ]
