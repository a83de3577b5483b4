"""Sums and the like over ranks, always in the order of ranks, so that every rank has the same bits."""

from collections.abc import Sequence
from typing import Literal, get_args

import ml_dtypes
import numpy as np

Op = Literal["sum", "mean", "max", "min", "prod"]
OPS: tuple[str, ...] = get_args(Op)

_UFUNCS: dict[str, np.ufunc] = {
    "sum": np.add,
    "mean": np.add,
    "max": np.maximum,
    "min": np.minimum,
    "prod": np.multiply,
}
#: Half precision is added up in float32.
_HALVES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
_PIECE = 1 << 16  #: elements widened at a time


def check(op: str, dtype: np.dtype) -> None:
    """
    Raises:
        ValueError: there is no such reduction of this type.
    """
    if op not in OPS:
        raise ValueError(f"op must be one of {', '.join(OPS)}, not {op!r}")
    if dtype == np.bool_ and op not in ("max", "min"):
        raise ValueError(f"op must be max (any) or min (all) for booleans, not {op!r}")
    if dtype.kind in "iu" and op == "mean":
        raise ValueError("op mean of integers is not an integer: sum them, or convert them before")
    if dtype.kind == "c" and op in ("max", "min"):
        raise ValueError(f"op {op} has no meaning for complex numbers")
    if dtype.kind == "V" and dtype not in _HALVES or dtype.itemsize == 1 and dtype.kind == "f":
        raise ValueError(f"{dtype} cannot be reduced: convert it to float32")


def reduce(parts: Sequence[np.ndarray], op: str, out: np.ndarray) -> None:
    """Combines flat arrays, one of each rank; `out` may be one of them."""
    if out.dtype in _HALVES and len(parts) > 1:
        for begin in range(0, out.size, _PIECE):
            piece = slice(begin, begin + _PIECE)
            wide = [part[piece].astype(np.float32) for part in parts]
            _reduce(wide, op, wide[0])
            out[piece] = wide[0]
        return
    _reduce(parts, op, out)


def _reduce(parts: Sequence[np.ndarray], op: str, out: np.ndarray) -> None:
    function = _UFUNCS[op]
    if len(parts) == 1:
        out[...] = parts[0]
        return
    # The sum goes into the first part until the last, since `out` may be any of the others.
    into = parts[0]
    for number, part in enumerate(parts[1:], 2):
        target = out if number == len(parts) else into
        function(into, part, out=target)
        into = target
    if op == "mean":
        np.divide(out, len(parts), out=out)
