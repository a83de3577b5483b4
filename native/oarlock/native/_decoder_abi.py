"""What crosses the C ABI for a decoder, mirroring ``src/decoder/options.h``."""

import ctypes

from oarlock.native import _quant_abi, quant

ACTIVATIONS = ("swiglu", "gelu_tanh", "gelu", "relu")
CACHE_FORMATS = ("fp32", "bf16", "int8")

_pointer = ctypes.c_void_p
_i32, _i64, _f32 = ctypes.c_int32, ctypes.c_int64, ctypes.c_float


class Matrix(ctypes.Structure):
    _fields_ = [("packed", _pointer), ("inputs", _i64), ("outputs", _i64), ("format", _i32)]


def matrix(given: quant.Matrix | None) -> Matrix:
    """A packed weight; it must be kept."""
    if given is None:
        return Matrix()
    index = _quant_abi.FORMATS.index(given.format)
    return Matrix(given.packed.ctypes.data, given.inputs, given.outputs, index)


class Linear(ctypes.Structure):
    _fields_ = [("weight", Matrix), ("bias", _pointer)]


class Norm(ctypes.Structure):
    _fields_ = [("weight", _pointer), ("bias", _pointer)]


class Layer(ctypes.Structure):
    _fields_ = [
        ("attention_norm", Norm),
        ("feed_forward_norm", Norm),
        ("qkv", Linear),
        ("out", Linear),
        ("up", Linear),
        ("down", Linear),
        ("router", Matrix),
        ("experts", ctypes.POINTER(Linear)),
    ]


class Model(ctypes.Structure):
    _fields_ = [
        *((name, _i32) for name in ("layers", "hidden", "heads", "kv_heads", "head_size")),
        *((name, _i32) for name in ("intermediate", "vocab", "max_length")),
        *((name, _i32) for name in ("experts", "experts_per_token", "layer_norm", "activation")),
        *((name, _i32) for name in ("rotary", "rotary_halves", "window")),
        ("epsilon", _f32),
        ("attention_scale", _f32),
        *((name, _pointer) for name in ("cos", "sin", "slopes", "positions")),
        ("embedding", Matrix),
        ("embedding_norm", Norm),
        ("final_norm", Norm),
        ("head", Matrix),
        ("of_layer", ctypes.POINTER(Layer)),
    ]


class LowRankPart(ctypes.Structure):
    _fields_ = [("b", Matrix), ("rank", _i64), ("output", _i64)]


class LowRank(ctypes.Structure):
    _fields_ = [("a", Matrix), ("of_part", ctypes.POINTER(LowRankPart)), ("parts", _i64)]


class AdapterLayer(ctypes.Structure):
    _fields_ = [
        *((name, LowRank) for name in ("qkv", "out", "up", "down")),
        ("experts", ctypes.POINTER(LowRank)),
    ]


class Adapter(ctypes.Structure):
    _fields_ = [("of_layer", ctypes.POINTER(AdapterLayer))]


class Cache(ctypes.Structure):
    _fields_ = [("memory", _pointer), ("pages", _i64), ("format", _i32)]


class Batch(ctypes.Structure):
    _fields_ = [
        *((name, _i64) for name in ("rows", "sequences", "most_pages", "logits")),
        *((name, _pointer) for name in ("tokens", "starts", "counts", "pages")),
        *((name, _pointer) for name in ("adapters", "wanted")),
        *((name, _pointer) for name in ("out_logits", "out_hidden")),
    ]
