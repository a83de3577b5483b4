"""Checking the arguments of the low-precision kernels, and reading their tensors."""

import sys
from typing import Any

import numpy as np

from oarlock.native import _abi, _lowp_abi
from oarlock.native._tensors import BFLOAT16, TensorList


def read(name: str, tensor: Any) -> TensorList | None:
    """One tensor as the list that the C ABI takes; None stays None."""
    return None if tensor is None else TensorList(name, [tensor])


def empty(like: Any, read_as: TensorList, shape: tuple[int, ...], dtype: Any) -> Any:
    """Memory on the device of a tensor: a NumPy array, or on a GPU a tensor of the same library."""
    if read_as.items[0].device != _abi.CUDA:
        return np.empty(shape, dtype)
    name = "bfloat16" if dtype == BFLOAT16 else np.dtype(dtype).name
    library = type(like).__module__.partition(".")[0]
    if library == "paddle":
        return sys.modules["paddle"].empty(shape, dtype=name, device=like.place)
    if library == "torch":
        torch = sys.modules["torch"]
        return torch.empty(shape, dtype=getattr(torch, name), device=like.device)
    raise ValueError(
        f"{read_as.name} is on a GPU, where memory of {library} cannot be had; pass a tensor of "
        "Paddle or torch, or out"
    )


def format_index(name: str, value: str) -> int:
    """The number of a format in the C ABI."""
    if value not in _lowp_abi.FORMATS:
        raise ValueError(f"{name} must be one of {', '.join(_lowp_abi.FORMATS)}, not {value!r}")
    return _lowp_abi.FORMATS.index(value)


def activation_index(value: str | None) -> int:
    if value not in _lowp_abi.ACTIVATIONS:
        names = ", ".join(str(one) for one in _lowp_abi.ACTIVATIONS)
        raise ValueError(f"activation must be one of {names}, not {value!r}")
    return _lowp_abi.ACTIVATIONS.index(value)


def block_size(value: int | None) -> int:
    """Elements that share a scale, which kernels take as 0 for all."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"block must be a positive multiple of 32 or None, not {value!r}")
    return value


def format_options(
    name: str, format: str, block: int | None, seed: int | None, codes: bool = False
) -> _lowp_abi.Format:
    """The structure for one operand."""
    if seed is not None and (
        isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64
    ):
        raise ValueError(f"rounding_seed must be an integer in [0, 2^64) or None, not {seed!r}")
    stochastic = seed is not None and not codes
    return _lowp_abi.Format(
        format_index(name, format), stochastic, codes, block_size(block), seed or 0
    )
