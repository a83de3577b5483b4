"""Options of attention's entry points, mirroring ``src/attention/options.h``."""

import ctypes


class Attention(ctypes.Structure):
    _fields_ = [("scale", ctypes.c_double), ("causal", ctypes.c_int32)]
