"""Options of the entry points for weights in few bits, mirroring ``src/quant/options.h``."""

import ctypes

FORMATS = ("fp32", "bf16", "int8", "int4")


class Matrix(ctypes.Structure):
    _fields_ = [
        ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("format", ctypes.c_int32),
    ]


class Options(ctypes.Structure):
    _fields_ = [
        ("matrix", Matrix),
        ("transposed", ctypes.c_int32),
        ("accumulate", ctypes.c_int32),
        ("base", ctypes.c_int32),
    ]
