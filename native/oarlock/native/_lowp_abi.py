"""Options of the low-precision entry points, mirroring ``src/lowp/options.h``."""

import ctypes

FORMATS = ("fp32", "bf16", "fp16", "int8", "int16", "fp8_e4m3", "fp8_e5m2")
ACTIVATIONS = (None, "relu", "gelu", "silu")


class Format(ctypes.Structure):
    _fields_ = [
        ("format", ctypes.c_int32),
        ("stochastic", ctypes.c_int32),
        ("codes", ctypes.c_int32),
        ("block", ctypes.c_int64),
        ("seed", ctypes.c_uint64),
    ]


class Matmul(ctypes.Structure):
    _fields_ = [
        ("a", Format),
        ("b", Format),
        ("transpose_a", ctypes.c_int32),
        ("transpose_b", ctypes.c_int32),
        ("activation", ctypes.c_int32),
        ("base", ctypes.c_int32),
    ]
