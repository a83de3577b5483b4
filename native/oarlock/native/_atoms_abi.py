"""Options of the entry points, mirroring ``src/atoms/radial_kernels.h``."""

import ctypes


class RadialOptions(ctypes.Structure):
    _fields_ = [
        ("basis", ctypes.c_int32),
        ("cut", ctypes.c_int32),
        ("silu", ctypes.c_int32),
        ("power", ctypes.c_int32),
        ("cutoff", ctypes.c_double),
        ("width", ctypes.c_double),
    ]
