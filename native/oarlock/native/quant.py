"""Weights in few bits, and products of float32 rows with them, for inference.

======  =========================================================  ==============
format  a weight                                                   bits a weight
======  =========================================================  ==============
fp32    float32                                                    32
bf16    bfloat16, multiplied in float32                            16
int8    -128 to 127 times a float16 scale for 32 inputs            8.5
int4    -8 to 7 times a float16 scale for 32 inputs                4.5
======  =========================================================  ==============

A ``Matrix`` holds a weight as the kernels read it. GGUF's Q8_0 and Q4_0 have the same numbers, so their codes
go in as they are (``Matrix.from_codes``).

With int8 and int4, rows are rounded to int8 too, with a scale for each 32 inputs; the 32 products are summed in
int32, exactly, and groups in float32 in their order.

- **Same bits** for any number of rows and of threads: a row's result does not depend on what else is in the
  batch. Paths with fused multiply-add agree in bits.
- **NaN and Inf** in a row make its results NaN.

>>> from oarlock.native import quant
>>> weight = quant.Matrix.pack(w, format="int4")  # [inputs, outputs]
>>> quant.matmul(x, weight, out)                  # [rows, inputs] -> [rows, outputs]

Source: Dettmers et al., LLM.int8(), 2208.07339; Frantar et al., 2210.17323 (groups); the numbers of ggml.
"""

import ctypes
import dataclasses
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from oarlock.native import _library, _pages, _quant_abi
from oarlock.native import threads as _threads
from oarlock.native._lowp_arguments import read
from oarlock.native._optim_arguments import run as _call
from oarlock.native._tensors import TensorList

GROUP = 32  #: inputs that share a scale
WIDTH = 32  #: outputs that lie together
_BLOCK = 64  # inputs whose codes lie together, of ``src/quant/layout.h``


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A weight [inputs, outputs] as the kernels read it.

    Args:
        packed: uint8, beginning at a multiple of 64 bytes.
        inputs, outputs: sizes.
        format: one of the table above.
    """

    packed: NDArray[np.uint8]
    inputs: int
    outputs: int
    format: str

    @classmethod
    def pack(
        cls, weight: Any, *, format: str, transposed: bool = False, threads: int | None = None
    ) -> Self:
        """Round a weight to nearest.

        int8 has the scale largest magnitude / 127, and no -128; int4 -m / 8 with the weight m of the largest magnitude,
        so that m itself is met.

        Args:
            weight: [inputs, outputs] float32 or bfloat16, contiguous.
            format: one of the table above.
            transposed: the weight is given as [outputs, inputs].
            threads: number of threads; None for Paddle's, or without Paddle the physical cores.

        Raises:
            ValueError: an argument is not as above; for integers, a weight is not finite, or too large.
        """
        given = read("weight", weight)
        assert given is not None
        shape = [given.items[0].shape[axis] for axis in range(given.items[0].ndim)]
        if len(shape) != 2:
            raise ValueError(f"weight must be a matrix, got shape {shape}")
        inputs, outputs = reversed(shape) if transposed else shape
        found = cls._empty(inputs, outputs, format)
        options = found._options(transposed=bool(transposed))
        _run("pack", [given, read("out", found.packed)], options, threads)
        return found

    @classmethod
    def from_codes(
        cls, codes: Any, scales: Any, *, format: str, threads: int | None = None
    ) -> Self:
        """Take rounded weights as they are.

        Args:
            codes: [outputs, inputs] int8; inputs are a multiple of 32.
            scales: [outputs, inputs / 32] float32, each exactly a number of float16.
            format: "int8" or "int4".
            threads: as in ``pack``.

        Raises:
            ValueError: an argument is not as above, or a code not in the format's range.
        """
        given = read("codes", codes)
        assert given is not None
        shape = [given.items[0].shape[axis] for axis in range(given.items[0].ndim)]
        if len(shape) != 2:
            raise ValueError(f"codes must be a matrix, got shape {shape}")
        found = cls._empty(shape[1], shape[0], format)
        lists = [given, read("scales", scales), read("out", found.packed)]
        _run("pack_codes", lists, found._options(), threads)
        return found

    def rows(self, outputs: Any, *, threads: int | None = None) -> NDArray[np.float32]:
        """The weights of some outputs, as of tokens in an embedding.

        Args:
            outputs: [n] int64.

        Returns:
            [n, inputs].

        Raises:
            ValueError: there is no such output.
        """
        index = np.ascontiguousarray(outputs, np.int64)
        if index.ndim != 1:
            raise ValueError(f"outputs must have one axis, got shape {index.shape}")
        out = np.empty((len(index), self.inputs), np.float32)
        lists = [read("weight", self.packed), read("outputs", index), read("out", out)]
        _run("unpack", lists, self._options(), threads)
        return out

    def columns(self, first: int, last: int) -> Self:
        """Outputs ``first`` to ``last`` - 1, in the same memory.

        Raises:
            ValueError: there are no such outputs, or ``first`` is not a multiple of 32.
        """
        if not 0 <= first < last <= self.outputs or first % WIDTH:
            raise ValueError(
                f"first and last must be in order and in 0..{self.outputs}, and first a multiple of {WIDTH}, "
                f"not {first} and {last}"
            )
        panel = self.packed.nbytes // -(-self.outputs // WIDTH)
        some = self.packed[first // WIDTH * panel : -(-last // WIDTH) * panel]
        return dataclasses.replace(self, packed=some, outputs=last - first)

    def dequantize(self) -> NDArray[np.float32]:
        """All weights, [inputs, outputs]."""
        return self.rows(np.arange(self.outputs)).T

    def codes(self) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """What ``from_codes`` takes: codes [outputs, inputs] and scales [outputs, inputs / 32, upwards].

        Raises:
            ValueError: the format is one of floats.
        """
        if self.format not in ("int8", "int4"):
            raise ValueError(f"format must be int8 or int4 to have codes, not {self.format!r}")
        blocks = -(-self.inputs // _BLOCK)
        panels = self.packed.reshape(-(-self.outputs // WIDTH), blocks, -1)
        heads = _BLOCK // GROUP * WIDTH * 2  # bytes of scales
        scales = np.ascontiguousarray(panels[..., :heads]).view(np.float16).astype(np.float32)
        scales = scales.reshape(len(panels), blocks * 2, WIDTH).transpose(0, 2, 1)
        bytes_ = panels[..., heads:]
        if self.format == "int8":
            grouped = bytes_.reshape(len(panels), blocks * _BLOCK // 4, WIDTH, 4)
            codes = (grouped ^ np.uint8(128)).view(np.int8)
        else:
            grouped = bytes_.reshape(len(panels), blocks * _BLOCK // 8, WIDTH, 4)
            both = np.stack([grouped & np.uint8(15), grouped >> np.uint8(4)], axis=2)
            codes = both.reshape(len(panels), -1, WIDTH, 4).view(np.int8) - np.int8(8)
        codes = codes.transpose(0, 2, 1, 3).reshape(len(panels) * WIDTH, -1)
        groups = -(-self.inputs // GROUP)
        whole = scales.reshape(len(panels) * WIDTH, -1)[: self.outputs, :groups]
        return (
            np.ascontiguousarray(codes[: self.outputs, : self.inputs]),
            np.ascontiguousarray(whole),
        )

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.packed.nbytes

    @classmethod
    def _empty(cls, inputs: int, outputs: int, format: str) -> Self:
        return cls(memory(packed_bytes(inputs, outputs, format)), inputs, outputs, format)

    def _options(self, **fields: Any) -> _quant_abi.Options:
        sizes = _quant_abi.Matrix(self.inputs, self.outputs, _quant_abi.FORMATS.index(self.format))
        return _quant_abi.Options(matrix=sizes, **fields)


def packed_bytes(inputs: int, outputs: int, format: str) -> int:
    """Bytes that a weight takes.

    Raises:
        ValueError: there is no such format, or a size is not positive.
    """
    if format not in _quant_abi.FORMATS:
        raise ValueError(f"format must be one of {', '.join(_quant_abi.FORMATS)}, not {format!r}")
    sizes = _quant_abi.Matrix(inputs, outputs, _quant_abi.FORMATS.index(format))
    library = _library.load()
    size = library.functions.oarlock_quant_packed_bytes
    size.restype = ctypes.c_int64
    count = size(ctypes.byref(sizes))
    if count < 0:
        raise ValueError(library.last_error())
    return count


def memory(count: int) -> NDArray[np.uint8]:
    """Bytes for packed weights: on large pages, beginning at a line of the cache."""
    return _pages.take(count)


def matmul(
    x: Any,
    weight: Matrix,
    out: Any,
    *,
    bias: Any = None,
    accumulate: bool = False,
    threads: int | None = None,
) -> None:
    r"""Rows times a weight.

    .. math::
        \mathrm{out}_{rn} = \sum_G s^x_{rG} s^w_{Gn} \sum_{k \in G}
        \mathrm{round}(x_{rk} / s^x_{rG})\, c_{kn} + \beta_n

    with :math:`s^x_{rG} = \max_{k \in G} |x_{rk}| / 127`; for floats, the plain product.

    Args:
        x: [rows, inputs] float32, contiguous.
        weight: [inputs, outputs].
        out: [rows, outputs] float32, other memory; written.
        bias: :math:`\beta`, float32 [outputs], or None.
        accumulate: add to what ``out`` holds.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It does not
            change the result.

    Raises:
        ValueError: an argument is not as above.
    """
    run(x, weight, out, bias=bias, accumulate=accumulate, threads=threads)


def run(
    x: Any,
    weight: Matrix,
    out: Any,
    *,
    bias: Any = None,
    accumulate: bool = False,
    base: bool = False,
    threads: int | None = None,
) -> None:
    """``matmul``; with ``base`` on what every processor of the code path has."""
    if not isinstance(weight, Matrix):
        raise ValueError(f"weight must be a quant.Matrix, not {type(weight).__name__}")
    lists = [read("x", x), read("weight", weight.packed), read("bias", bias), read("out", out)]
    options = weight._options(accumulate=bool(accumulate), base=bool(base))
    _run("matmul", lists, options, threads)


def _run(
    name: str,
    lists: list[TensorList | None],
    options: _quant_abi.Options,
    threads: int | None,
) -> None:
    try:
        _call(f"oarlock_quant_{name}", lists, ctypes.byref(options), _threads.count(threads))
    except ValueError as error:  # kernels take lists, and speak of the one tensor of each as "x[0]"
        raise ValueError(str(error).replace("[0] ", " ")) from None
