"""What crosses the C ABI only on a GPU, mirroring ``cuda/quant/gpu_options.h`` and ``cuda/decoder/gpu_options.h``."""

import ctypes

from oarlock.native._quant_abi import Matrix

_i32, _i64, _f32 = ctypes.c_int32, ctypes.c_int64, ctypes.c_float


class Matmul(ctypes.Structure):
    _fields_ = [("matrix", Matrix), ("rows", _i64), ("accumulate", _i32)]


class Norm(ctypes.Structure):
    _fields_ = [("layer_norm", _i32), ("epsilon", _f32)]


class Attention(ctypes.Structure):
    _fields_ = [
        *((name, _i32) for name in ("layer", "layers", "heads", "kv_heads", "head_size")),
        *((name, _i32) for name in ("format", "rotary", "rotary_halves", "window")),
        *((name, _i32) for name in ("least_rows", "most_rows", "most_length")),
        ("scale", _f32),
    ]
