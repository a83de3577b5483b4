"""What crosses the C ABI for a Deep Potential, mirroring ``src/atoms/deep_potential_options.h``."""

import ctypes

_pointer = ctypes.c_void_p
_i32, _i64, _f64 = ctypes.c_int32, ctypes.c_int64, ctypes.c_double


class Layer(ctypes.Structure):
    _fields_ = [
        *((name, _pointer) for name in ("weight", "bias", "timestep")),
        ("inputs", _i64),
        ("outputs", _i64),
    ]


class Table(ctypes.Structure):
    _fields_ = [("nodes", _pointer), ("first", _f64), ("step", _f64), ("intervals", _i64)]


class Model(ctypes.Structure):
    _fields_ = [
        *((name, _i32) for name in ("bits", "kinds", "one_side", "axis")),
        *((name, _i32) for name in ("embedding_layers", "fitting_layers")),
        *((name, _f64) for name in ("cutoff", "smooth", "scale")),
        *((name, _pointer) for name in ("mean", "deviation", "sel", "reference", "nothing")),
        ("embedding", ctypes.POINTER(Layer)),
        ("fitting", ctypes.POINTER(Layer)),
        ("tables", ctypes.POINTER(Table)),
    ]


class Structure(ctypes.Structure):
    _fields_ = [
        *((name, _i64) for name in ("atoms", "rows", "owned")),
        *((name, _pointer) for name in ("positions", "species", "offsets", "neighbours", "shifts")),
        *((name, _pointer) for name in ("energies", "forces", "virial", "virials")),
    ]
