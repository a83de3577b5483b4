"""What the sparse formats share: values, their places in the dense matrix, and products."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import paddle

from .. import _checks

PATHS = (None, "native", "paddle")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SparseMatrix:
    """A sparse matrix [rows, columns]: ``values`` that may be trained, and a structure that is fixed.

    A subclass says where its values stand (``positions``), and multiplies by a kernel.
    """

    #: name of the format in files and reports
    format: ClassVar[str] = ""
    #: fields of the structure, NumPy arrays in files
    arrays: ClassVar[tuple[str, ...]] = ()
    #: fields that are numbers
    numbers: ClassVar[tuple[str, ...]] = ()

    shape: tuple[int, int]
    values: paddle.Tensor

    def __post_init__(self):
        shape = _shape(self.shape)
        object.__setattr__(self, "shape", shape)
        if not isinstance(self.values, paddle.Tensor):
            raise ValueError(f"values must be a paddle.Tensor, got {_checks.shown(self.values)}.")
        self._check()
        if self.values.shape != list(self._values_shape()):
            raise ValueError(
                f"values have shape {list(self.values.shape)}, but the structure needs "
                f"{list(self._values_shape())}."
            )

    # What a format defines ----------------------------------------------------------------------

    def _check(self) -> None:
        """Refuse a structure that fits no matrix of this shape."""
        raise NotImplementedError

    def _values_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    def positions(self) -> np.ndarray:
        """Of each value the place ``row * columns + column``, int64, in the shape of the values."""
        raise NotImplementedError

    def _native(self, x: paddle.Tensor) -> paddle.Tensor:
        raise NotImplementedError

    # What all formats can do --------------------------------------------------------------------

    @property
    def density(self) -> float:
        """Share of the elements that are kept."""
        size = self.shape[0] * self.shape[1]
        return int(np.prod(self._values_shape())) / size if size else 0.0

    def to_dense(self) -> paddle.Tensor:
        """The matrix with zeros where nothing is kept; gradients reach the values."""
        rows, columns = self.shape
        zeros = paddle.zeros([rows * columns], dtype=self.values.dtype)
        if self.values.size == 0:
            return zeros.reshape([rows, columns])
        places = paddle.to_tensor(self.positions().reshape(-1), place=self.values.place)
        flat = paddle.scatter(zeros, places, self.values.reshape([-1]), overwrite=True)
        return flat.reshape([rows, columns])

    def matmul(self, x: paddle.Tensor, *, path: str | None = None) -> paddle.Tensor:
        """Product ``x @ self`` with gradients of ``x`` and of the values.

        Args:
            x: [..., rows], of the values' type and device.
            path: ``"native"`` kernels (float32 on the CPU), ``"paddle"`` operators, which make the
                matrix dense first, or None for the kernels wherever they can.

        Raises:
            ValueError: ``x`` does not fit, or the kernels cannot take what ``path`` asks for.
        """
        _checks.choice("path", path, PATHS)
        if len(x.shape) == 0 or x.shape[-1] != self.shape[0]:
            raise ValueError(f"x has shape {list(x.shape)}, but must be [..., {self.shape[0]}].")
        if x.dtype != self.values.dtype:
            raise ValueError(
                f"x is {x.dtype}, but the values are {self.values.dtype}; cast one of them."
            )
        able = self.is_native() and x.place.is_cpu_place()
        if path == "native" and not able:
            raise ValueError(
                f'path="native" takes float32 on the CPU, got {x.dtype} on {x.place}; use path=None.'
            )
        if able and path != "paddle":
            return self._native(x)
        return paddle.matmul(x, self.to_dense())

    def is_native(self) -> bool:
        """Whether the kernels can take the values."""
        return self.values.dtype == paddle.float32 and self.values.place.is_cpu_place()

    def with_values(self, values: paddle.Tensor) -> "SparseMatrix":
        """The same structure with other values of the same shape."""
        return dataclasses.replace(self, values=values)

    def structure(self) -> dict[str, Any]:
        """The fields of the structure: arrays and numbers."""
        return {name: getattr(self, name) for name in (*self.arrays, *self.numbers)}

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"{type(self).__name__}({rows} x {columns}, {self.density:.1%} kept)"


def _shape(shape) -> tuple[int, int]:
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise ValueError(f"shape must be (rows, columns), got {_checks.shown(shape)}.")
    return _checks.whole("shape[0]", shape[0], 0), _checks.whole("shape[1]", shape[1], 0)


def int32_vector(name: str, values) -> np.ndarray:
    """A vector of int32; refuses numbers that are not whole or too large."""
    array = np.asarray(values.numpy() if isinstance(values, paddle.Tensor) else values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(
            f"{name} must be a vector of integers, got {array.dtype} of shape {list(array.shape)}."
        )
    if array.size and not 0 <= int(array.min()) <= int(array.max()) < 2**31:
        raise ValueError(f"{name} must be in [0, 2^31), got {array.min()} to {array.max()}.")
    return np.ascontiguousarray(array, dtype=np.int32)


def check_compressed(pointers: np.ndarray, indices: np.ndarray, rows: int, columns: int) -> None:
    """Refuse pointers and indices that are no compressed matrix of ``rows`` and ``columns``."""
    if len(pointers) != rows + 1:
        raise ValueError(f"pointers has {len(pointers)} elements, but {rows} rows need {rows + 1}.")
    if pointers[0] != 0 or pointers[-1] != len(indices) or (np.diff(pointers) < 0).any():
        raise ValueError(
            f"pointers must rise from 0 to the number of indices, {len(indices)}, got "
            f"{_checks.shown(pointers.tolist())}."
        )
    if len(indices) and int(indices.max()) >= columns:
        raise ValueError(f"indices must be in [0, {columns}), got {indices.max()}.")
    falls = np.diff(indices.astype(np.int64)) <= 0
    starts = pointers[1:-1][(pointers[1:-1] > 0) & (pointers[1:-1] < len(indices))]
    falls[starts - 1] = False  # from one row to the next
    if falls.any():
        at = int(np.argmax(falls))
        raise ValueError(
            f"indices must rise within a row, got {indices[at + 1]} after {indices[at]} at "
            f"{at + 1}; sort them and add up duplicates."
        )


def dense_matrix(dense) -> paddle.Tensor:
    if not isinstance(dense, paddle.Tensor) or len(dense.shape) != 2:
        raise ValueError(f"dense must be a matrix (paddle.Tensor), got {_checks.shown(dense)}.")
    return dense


def kept_mask(dense: paddle.Tensor, mask, shape: tuple[int, ...]) -> np.ndarray:
    """``mask`` as bool of this shape; None for where ``dense`` is not zero."""
    if mask is None:
        return dense.numpy() != 0
    mask = np.asarray(mask.numpy() if isinstance(mask, paddle.Tensor) else mask)
    if mask.dtype != bool or mask.shape != shape:
        raise ValueError(
            f"mask must be bool of shape {list(shape)}, got {mask.dtype} of {list(mask.shape)}."
        )
    return mask
