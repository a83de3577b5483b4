"""``oarlock.native.quant`` on a GPU: int8 and int4 weights, and rows rounded as on the CPU.

Rows and weights lie in bricks that tensor cores take as they are. Products are of integers, exact for each group
of 32 inputs: for few rows that needs the fewest instructions for a weight, and reading the weights is what takes
time; for many it is the fastest arithmetic that a GPU has. Groups are added in float32 in an order that the inputs
alone decide, so that a row has the same bits in every batch and call; up to 64 inputs they are those of the CPU's paths with
fused multiply-add.

>>> from oarlock.native import quant, quant_cuda
>>> packed = quant.Matrix.pack(w, format="int4")                   # on the CPU
>>> weight = quant_cuda.Matrix.arrange(packed, to_gpu(packed.packed))
>>> rows = quant_cuda.encode(x)                                    # [rows, inputs] on the GPU
>>> quant_cuda.matmul(rows, weight, out)

Weights of bfloat16 are the business of ``lowp.matmul``. Kernels compile and agree with the oracle on an emulator;
they have not been run on a GPU yet.
"""

import ctypes
import dataclasses
from typing import Any, Self

import numpy as np

from oarlock.native import _cuda_abi, _cuda_call, _quant_abi, quant

_i64 = ctypes.c_int64


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A weight [inputs, outputs] as the kernels read it.

    Args:
        bricks: uint8 on a GPU.
        inputs, outputs: sizes.
        format: "int8" or "int4".
    """

    bricks: Any
    inputs: int
    outputs: int
    format: str

    @classmethod
    def arrange(cls, packed: quant.Matrix, panels: Any) -> Self:
        """A weight of the CPU's, put for a GPU.

        Args:
            packed: the weight.
            panels: ``packed.packed`` on the GPU.

        Raises:
            ValueError: the format is one of floats, or panels are not as above.
        """
        out = cls.empty(panels, inputs=packed.inputs, outputs=packed.outputs, format=packed.format)
        tensors = {"panels": panels, "out": out.bricks}
        _cuda_call.call("quant_arrange", tensors, ctypes.byref(out._sizes()))
        return out

    @classmethod
    def empty(cls, like: Any, *, inputs: int, outputs: int, format: str) -> Self:
        """Memory beside the tensor ``like``.

        Raises:
            ValueError: there are no such weights on a GPU.
        """
        if format not in _quant_abi.FORMATS:
            raise ValueError(f"format must be int8 or int4, not {format!r}")
        sizes = _quant_abi.Matrix(inputs, outputs, _quant_abi.FORMATS.index(format))
        count = _cuda_call.size("quant_weight_bytes", ctypes.byref(sizes))
        return cls(_cuda_call.empty(like, (count,), np.uint8), inputs, outputs, format)

    def _sizes(self) -> _quant_abi.Matrix:
        index = _quant_abi.FORMATS.index(self.format)
        return _quant_abi.Matrix(self.inputs, self.outputs, index)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows [count, inputs] rounded to int8 with a scale for each 32 inputs.

    Args:
        bricks: uint8 on a GPU.
        count, inputs: sizes.
    """

    bricks: Any
    count: int
    inputs: int

    @classmethod
    def empty(cls, like: Any, count: int, inputs: int) -> Self:
        """Memory beside the tensor ``like``, for what writes rounded rows."""
        size = _cuda_call.size("quant_rows_bytes", _i64(count), _i64(inputs))
        return cls(_cuda_call.empty(like, (size,), np.uint8), count, inputs)


def encode(x: Any, out: Rows | None = None) -> Rows:
    """Round rows.

    Args:
        x: [rows, inputs] float32 or bfloat16 on a GPU, contiguous.
        out: of these sizes; written. None for new memory.

    Raises:
        ValueError: an argument is not as above.
    """
    shape = tuple(x.shape)
    if len(shape) != 2:
        raise ValueError(f"x must be a matrix, got shape {list(shape)}")
    found = Rows.empty(x, *shape) if out is None else _of_sizes("out", out, *shape)
    _cuda_call.call("quant_encode", {"x": x, "out": found.bricks})
    return found


def matmul(
    rows: Rows, weight: Matrix, out: Any, *, bias: Any = None, accumulate: bool = False
) -> None:
    """Rounded rows times a weight, plus the bias: the numbers of ``quant.matmul`` up to the order of sums.

    Args:
        rows: [rows, inputs].
        weight: [inputs, outputs].
        out: [rows, outputs] float32 or bfloat16, contiguous; written.
        bias: float32 [outputs], or None.
        accumulate: add to what ``out`` holds.

    Raises:
        ValueError: an argument is not as above.
    """
    if not isinstance(weight, Matrix):
        raise ValueError(f"weight must be a quant_cuda.Matrix, not {type(weight).__name__}")
    _of_sizes("rows", rows, rows.count, weight.inputs)
    options = _cuda_abi.Matmul(weight._sizes(), rows.count, bool(accumulate))
    tensors = {"rows": rows.bricks, "weight": weight.bricks, "bias": bias, "out": out}
    _cuda_call.call("quant_matmul", tensors, ctypes.byref(options))


def _of_sizes(name: str, rows: Rows, count: int, inputs: int) -> Rows:
    if (rows.count, rows.inputs) != (count, inputs):
        raise ValueError(
            f"{name} is for [{rows.count}, {rows.inputs}], but must be for [{count}, {inputs}]"
        )
    return rows
