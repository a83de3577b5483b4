"""Options of the optimisers' entry points, mirroring ``src/optim/options.h``."""

import ctypes


class _Rounding(ctypes.Structure):
    _fields_ = [("seed", ctypes.c_uint64), ("stochastic", ctypes.c_int32)]


def _doubles(*names: str) -> list[tuple[str, type]]:
    return [(name, ctypes.c_double) for name in names]


class Adamw(ctypes.Structure):
    _fields_ = [
        *_doubles("lr", "beta1", "beta2", "eps", "weight_decay", "grad_scale"),
        ("step", ctypes.c_int64),
        ("rounding", _Rounding),
    ]


class Lion(ctypes.Structure):
    _fields_ = [
        *_doubles("lr", "beta1", "beta2", "weight_decay", "grad_scale"),
        ("rounding", _Rounding),
    ]


class Sgd(ctypes.Structure):
    _fields_ = [
        *_doubles("lr", "momentum", "dampening", "weight_decay", "grad_scale"),
        ("nesterov", ctypes.c_int32),
        ("rounding", _Rounding),
    ]


class Lamb(ctypes.Structure):
    _fields_ = [
        *_doubles("lr", "beta1", "beta2", "eps", "weight_decay", "grad_scale", "max_trust_ratio"),
        ("step", ctypes.c_int64),
        ("rounding", _Rounding),
    ]


class Sophia(ctypes.Structure):
    _fields_ = [
        *_doubles("lr", "beta1", "gamma", "eps", "weight_decay", "grad_scale"),
        ("rounding", _Rounding),
    ]


class SophiaHessian(ctypes.Structure):
    _fields_ = _doubles("beta2", "scale", "grad_scale")


class ScheduleFree(ctypes.Structure):
    _fields_ = [
        *_doubles("lr", "beta1", "beta2", "eps", "weight_decay", "average_weight", "grad_scale"),
        ("step", ctypes.c_int64),
        ("rounding", _Rounding),
    ]


class Lars(ctypes.Structure):
    _fields_ = [
        *_doubles("lr", "momentum", "weight_decay", "trust_coefficient", "eps", "grad_scale"),
        ("nesterov", ctypes.c_int32),
        ("rounding", _Rounding),
    ]


class Mars(ctypes.Structure):
    _fields_ = [
        *_doubles("lr", "beta1", "beta2", "eps", "gamma", "weight_decay", "grad_scale", "max_norm"),
        ("step", ctypes.c_int64),
        ("rounding", _Rounding),
    ]


class Adafactor(ctypes.Structure):
    _fields_ = [
        *_doubles("lr", "eps_scale", "weight_decay", "grad_scale", "clip_threshold"),
        ("relative", ctypes.c_int32),
        ("rounding", _Rounding),
    ]


class RowColumn(ctypes.Structure):
    _fields_ = _doubles("decay", "eps", "grad_scale")


def rounding(seed: int | None) -> _Rounding:
    """The field for ``rounding_seed``: None rounds to nearest."""
    if seed is None:
        return _Rounding(0, 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ValueError(f"rounding_seed must be an integer in [0, 2^64) or None, not {seed!r}")
    return _Rounding(seed, 1)
