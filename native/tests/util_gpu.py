"""Tensors on the first GPU, for tests: Paddle's where it was built for GPUs, else PyTorch's."""

import contextlib
import functools
import importlib.util

import ml_dtypes
import numpy as np
import pytest

from oarlock.native import cuda

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def _why_not() -> str | None:
    if not cuda.available():
        return cuda.why_not()
    if importlib.util.find_spec("paddle") is not None:
        import paddle

        if paddle.device.is_compiled_with_cuda():
            return None
    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return None
    return "neither Paddle nor PyTorch is built for GPUs"


needs_gpu = pytest.mark.skipif(_why_not() is not None, reason=f"no GPU: {_why_not()}")


class _Paddle:
    def __init__(self) -> None:
        import paddle

        self._paddle = paddle

    def put(self, x):
        place = self._paddle.CUDAPlace(0)
        if x.dtype == BFLOAT16:
            return self._paddle.to_tensor(x.astype(np.float32), place=place).astype("bfloat16")
        return self._paddle.to_tensor(x, place=place)

    def get(self, x):
        from oarlock.native.paddle import as_numpy

        return as_numpy(x.cpu()).copy()


class _Torch:
    def __init__(self) -> None:
        import torch

        self._torch = torch
        # NumPy has no 8-bit floating point and no bfloat16: bits go under another name.
        self._as_bits = {torch.bfloat16: (torch.int16, BFLOAT16)}
        for name in ("float8_e4m3fn", "float8_e5m2"):
            self._as_bits[getattr(torch, name)] = (torch.uint8, np.dtype(getattr(ml_dtypes, name)))

    def put(self, x):
        for kind, (bits, dtype) in self._as_bits.items():
            if x.dtype == dtype:
                name = str(bits).removeprefix("torch.")
                return self._torch.from_numpy(x.view(name).copy()).cuda().view(kind)
        return self._torch.from_numpy(np.array(x)).cuda()

    def get(self, x):
        x = x.cpu()
        if x.dtype in self._as_bits:
            bits, dtype = self._as_bits[x.dtype]
            return x.view(bits).numpy().view(dtype)
        return x.numpy()


@functools.cache
def _tensors() -> _Paddle | _Torch:
    if importlib.util.find_spec("paddle") is not None:
        import paddle

        if paddle.device.is_compiled_with_cuda():
            return _Paddle()
    return _Torch()


class Gpu:
    """A place for operands, as the emulator of `util_cuda_lowp` is one."""

    exact = False  # sums of tensor cores cut off where float32 rounds

    @staticmethod
    def put(x):
        """A tensor on the GPU with an array's values, its bits unchanged."""
        return _tensors().put(np.asarray(x))

    @staticmethod
    def get(x):
        """A tensor of the GPU as an array."""
        return _tensors().get(x)

    active = staticmethod(contextlib.nullcontext)
