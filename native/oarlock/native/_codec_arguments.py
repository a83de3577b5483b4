"""Checking the arguments of the codec kernels, and calling them."""

import ctypes
import math
import numbers
import re
from collections.abc import Sequence
from typing import Any

from oarlock.native import _codec_abi, _library
from oarlock.native import threads as _threads
from oarlock.native._tensors import TensorList

_LARGEST = 2**63 - 1
ABSENT = object()


def flag(name: str, value: bool) -> int:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return int(value)


def whole(name: str, value: int, least: int = 0) -> int:
    """An integer that the C ABI can take; kernels know the upper limits."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(f"{name} must be an integer, not {value!r}")
    if not least <= value <= _LARGEST:
        raise ValueError(f"{name} must be an integer >= {least}, not {value!r}")
    return int(value)


def finite(name: str, value: float) -> float:
    """Finite as float32, of any sign."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(ctypes.c_float(value).value):
        raise ValueError(f"{name} must be finite as float32, not {value!r}")
    return float(value)


def seed_number(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or not 0 <= seed < 2**64:
        raise ValueError(f"seed must be an integer in [0, 2^64), not {seed!r}")
    return int(seed)


def run(
    name: str,
    tensors: dict[str, Any],
    *results: Any,
    threads: int | None,
    **options: Any,
) -> None:
    """Call ``oarlock_codec_<name>`` with a tensor or a list for each name, options, results and threads.

    A tensor that may be absent is ``ABSENT`` then.
    """
    team = _threads.count(threads)
    given = ctypes.byref(_codec_abi.Options(**options))
    single = [argument for argument, one in tensors.items() if not isinstance(one, (list, tuple))]
    try:
        lists = [TensorList(argument, _listed(one)) for argument, one in tensors.items()]
        arguments = [ctypes.byref(one.argument) for one in lists]
        _library.load().call(f"oarlock_codec_{name}", *arguments, given, *results, team)
    except ValueError as error:
        # Kernels take lists, and speak of the one tensor of each as "x[0]".
        text = re.sub(rf"\b({'|'.join(single)})\[0\]", r"\1", str(error)) if single else str(error)
        raise ValueError(text) from None


def _listed(given: Any) -> Sequence[Any]:
    if given is ABSENT:
        return []
    return given if isinstance(given, (list, tuple)) else [given]
