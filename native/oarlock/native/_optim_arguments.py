"""Checking the arguments of the optimisers' kernels, and calling the library of their device."""

import ctypes
import math
import numbers
from collections.abc import Sequence
from typing import Any

from oarlock.native import _abi, _library, cuda
from oarlock.native._tensors import TensorList

Tensors = Sequence[Any]


def read(**lists: Tensors) -> list[TensorList | None]:
    return [TensorList(name, tensors) for name, tensors in lists.items()]


def run(name: str, lists: list[TensorList | None], *rest) -> None:
    arguments = [None if one is None else ctypes.byref(one.argument) for one in lists]
    _library_for(name, lists).call(name, *arguments, *rest)


def _library_for(name: str, lists: list[TensorList | None]) -> _library.Library:
    """That of the first tensor's device; the kernel checks that the others are there too."""
    first = next((one for one in lists if one is not None and len(one.items)), None)
    if first is None or first.items[0].device != _abi.CUDA:
        return _library.load()
    return cuda.library_for(name, first.stream())


def _real(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise ValueError(f"{name} must be a number, not {value!r}")
    return float(value)


def number(name: str, value: float) -> float:
    """Finite and not negative."""
    real = _real(name, value)
    if not 0.0 <= real < math.inf:
        raise ValueError(f"{name} must be finite and >= 0, not {value!r}")
    return real


def positive(name: str, value: float) -> float:
    real = _real(name, value)
    if not 0.0 < real < math.inf:
        raise ValueError(f"{name} must be finite and > 0, not {value!r}")
    return real


def limit(name: str, value: float | None) -> float:
    """An upper limit > 0, or None for none, which kernels take as 0."""
    if value is None:
        return 0.0
    real = number(name, value)
    if not real:
        raise ValueError(f"{name} must be > 0 or None, not 0")
    return real


def fraction(name: str, value: float) -> float:
    """In [0, 1), as a decay rate is."""
    real = _real(name, value)
    if not 0.0 <= real < 1.0:
        raise ValueError(f"{name} must be in [0, 1), not {value!r}")
    return real


def share(name: str, value: float) -> float:
    """In [0, 1], as the weight of an average is."""
    real = _real(name, value)
    if not 0.0 <= real <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], not {value!r}")
    return real


def factor(name: str, value: float) -> float:
    """Finite, of any sign."""
    real = _real(name, value)
    if not math.isfinite(real):
        raise ValueError(f"{name} must be finite, not {value!r}")
    return real


def step_number(step: int) -> int:
    if isinstance(step, bool) or not isinstance(step, numbers.Integral) or step < 1:
        raise ValueError(f"step must be an integer >= 1, the number of this step, not {step!r}")
    return int(step)
