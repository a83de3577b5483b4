"""Sparse formats: single entries (CSR, COO), dense blocks (BSR), and N of M in a group (NM).

Each is made from a dense matrix, or from its parts, which are checked; ``to_dense`` goes back.
"""

import dataclasses
from typing import ClassVar

import numpy as np
import paddle
from oarlock.native.paddle import sparse as kernels

from .. import _checks
from ._base import SparseMatrix, check_compressed, dense_matrix, int32_vector, kept_mask


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CSR(SparseMatrix):
    """Compressed rows: row i has the values ``pointers[i]`` to ``pointers[i + 1]``.

    Args:
        shape: (rows, columns).
        values: [entries].
        pointers: [rows + 1] integers, rising from 0 to the number of entries.
        indices: [entries] columns, rising within a row.
    """

    format: ClassVar[str] = "csr"
    arrays: ClassVar[tuple[str, ...]] = ("pointers", "indices")

    pointers: np.ndarray
    indices: np.ndarray

    @classmethod
    def from_dense(cls, dense: paddle.Tensor, *, mask=None) -> "CSR":
        """Keep what is not zero, or where the bool ``mask`` [rows, columns] says."""
        dense = dense_matrix(dense)
        kept = kept_mask(dense, mask, tuple(dense.shape))
        pointers = np.concatenate([[0], np.cumsum(kept.sum(1))])
        places = np.flatnonzero(kept)
        return cls(
            shape=tuple(dense.shape),
            values=take(dense, places),
            pointers=pointers,
            indices=places % max(dense.shape[1], 1),
        )

    def _check(self) -> None:
        for name in self.arrays:
            object.__setattr__(self, name, int32_vector(name, getattr(self, name)))
        check_compressed(self.pointers, self.indices, *self.shape)

    def _values_shape(self) -> tuple[int, ...]:
        return (len(self.indices),)

    def positions(self) -> np.ndarray:
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.pointers))
        return rows * self.shape[1] + self.indices

    def _native(self, x: paddle.Tensor) -> paddle.Tensor:
        return kernels.csr_linear(
            x, self.values, self.pointers, self.indices, columns=self.shape[1]
        )

    def to_coo(self) -> "COO":
        """The same entries with a row for each."""
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.pointers))
        return COO(shape=self.shape, values=self.values, rows=rows, columns=self.indices)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class COO(SparseMatrix):
    """A row and a column for each value, sorted by row and then by column.

    Args:
        shape: (rows, columns).
        values: [entries].
        rows, columns: [entries] integers; no place twice.
    """

    format: ClassVar[str] = "coo"
    arrays: ClassVar[tuple[str, ...]] = ("rows", "columns")

    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def from_dense(cls, dense: paddle.Tensor, *, mask=None) -> "COO":
        """Keep what is not zero, or where the bool ``mask`` [rows, columns] says."""
        return CSR.from_dense(dense, mask=mask).to_coo()

    @classmethod
    def from_entries(cls, shape, values: paddle.Tensor, rows, columns) -> "COO":
        """From entries in any order; those of the same place are added up."""
        rows, columns = int32_vector("rows", rows), int32_vector("columns", columns)
        if not len(rows) == len(columns) == values.shape[0]:
            raise ValueError(
                f"rows, columns and values must be as long, got {len(rows)}, {len(columns)} and "
                f"{values.shape[0]}."
            )
        places, inverse = np.unique(
            rows.astype(np.int64) * int(shape[1]) + columns, return_inverse=True
        )
        if len(places) != len(rows) or (np.diff(inverse) < 0).any():
            sums = paddle.zeros([len(places)], dtype=values.dtype)
            order = paddle.to_tensor(inverse.reshape(-1).astype(np.int64), place=values.place)
            values = paddle.index_add(sums, order, 0, values)
        width = max(int(shape[1]), 1)
        return cls(shape=shape, values=values, rows=places // width, columns=places % width)

    def _check(self) -> None:
        for name in self.arrays:
            object.__setattr__(self, name, int32_vector(name, getattr(self, name)))
        if len(self.rows) != len(self.columns):
            raise ValueError(
                f"rows and columns must be as long, got {len(self.rows)} and {len(self.columns)}."
            )
        for name, values, size in zip(self.arrays, (self.rows, self.columns), self.shape):
            if len(values) and int(values.max()) >= size:
                raise ValueError(f"{name} must be in [0, {size}), got {values.max()}.")
        if (np.diff(self.positions()) <= 0).any():
            raise ValueError(
                "rows and columns must be sorted and name no place twice; use COO.from_entries."
            )

    def _values_shape(self) -> tuple[int, ...]:
        return (len(self.rows),)

    def positions(self) -> np.ndarray:
        return self.rows.astype(np.int64) * self.shape[1] + self.columns

    def to_csr(self) -> CSR:
        """The same entries, compressed."""
        counts = np.bincount(self.rows, minlength=self.shape[0])
        pointers = np.concatenate([[0], np.cumsum(counts)])
        return CSR(shape=self.shape, values=self.values, pointers=pointers, indices=self.columns)

    def _native(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.to_csr()._native(x)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class BSR(SparseMatrix):
    """Dense blocks: block row i has the blocks ``pointers[i]`` to ``pointers[i + 1]``.

    Args:
        shape: (rows, columns), multiples of the sizes of a block.
        values: [blocks, k, n].
        pointers: [rows / k + 1] integers.
        indices: [blocks] block columns, rising within a block row.
    """

    format: ClassVar[str] = "bsr"
    arrays: ClassVar[tuple[str, ...]] = ("pointers", "indices")

    pointers: np.ndarray
    indices: np.ndarray

    @classmethod
    def from_dense(
        cls, dense: paddle.Tensor, *, block: tuple[int, int] = (16, 16), mask=None
    ) -> "BSR":
        """Keep blocks that are not all zero, or where the bool ``mask`` of blocks says."""
        dense = dense_matrix(dense)
        (rows, columns), (k, n) = dense.shape, check_block(block, tuple(dense.shape))
        grid = rows // k, columns // n
        if mask is None:
            kept = (dense.numpy() != 0).reshape(grid[0], k, grid[1], n).any((1, 3))
        else:
            kept = kept_mask(dense, mask, grid)
        places = np.flatnonzero(kept)
        pointers = np.concatenate([[0], np.cumsum(kept.sum(1))])
        values = take(dense, block_positions(places, (rows, columns), (k, n)))
        indices = places % max(grid[1], 1)
        return cls(shape=(rows, columns), values=values, pointers=pointers, indices=indices)

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of a block."""
        return self.values.shape[1], self.values.shape[2]

    def _check(self) -> None:
        if len(self.values.shape) != 3:
            raise ValueError(
                f"values must be [blocks, block rows, block columns], got {list(self.values.shape)}."
            )
        k, n = check_block(self.block, self.shape)
        for name in self.arrays:
            object.__setattr__(self, name, int32_vector(name, getattr(self, name)))
        check_compressed(self.pointers, self.indices, self.shape[0] // k, self.shape[1] // n)

    def _values_shape(self) -> tuple[int, ...]:
        return (len(self.indices), *self.block)

    def positions(self) -> np.ndarray:
        rows = np.repeat(np.arange(len(self.pointers) - 1), np.diff(self.pointers))
        places = rows * (self.shape[1] // self.block[1]) + self.indices
        return block_positions(places, self.shape, self.block)

    def _native(self, x: paddle.Tensor) -> paddle.Tensor:
        return kernels.bsr_linear(
            x, self.values, self.pointers, self.indices, columns=self.shape[1]
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NM(SparseMatrix):
    """N of M: in every column each group of M neighbouring rows keeps N entries.

    Args:
        shape: (rows, columns); rows a multiple of ``group``.
        values: [kept rows, columns].
        codes: [kept rows, columns] uint8: which rows of their groups are kept, rising in a group.
        group: M.
    """

    format: ClassVar[str] = "nm"
    arrays: ClassVar[tuple[str, ...]] = ("codes",)
    numbers: ClassVar[tuple[str, ...]] = ("group",)

    codes: np.ndarray
    group: int = 4

    @classmethod
    def from_dense(cls, dense: paddle.Tensor, *, keep: int = 2, group: int = 4) -> "NM":
        """Keep the ``keep`` entries of largest magnitude of every group; ties go to the first."""
        dense = dense_matrix(dense)
        rows, columns = dense.shape
        _check_group(group, rows)
        if not 1 <= _checks.whole("keep", keep, 1) <= group:
            raise ValueError(f"keep must be in [1, {group}], got {keep}.")
        sizes = np.abs(dense.numpy()).reshape(rows // group, group, columns)
        order = np.argsort(-sizes, axis=1, kind="stable")[:, :keep]
        codes = np.sort(order, axis=1).reshape(-1, columns).astype(np.uint8)
        places = _nm_positions(codes, (rows, columns), keep, group)
        return cls(shape=(rows, columns), values=take(dense, places), codes=codes, group=group)

    @property
    def keep(self) -> int:
        """N."""
        return len(self.codes) * self.group // self.shape[0] if self.shape[0] else 0

    def _check(self) -> None:
        rows, columns = self.shape
        _check_group(self.group, rows)
        codes = np.ascontiguousarray(self.codes)
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != columns:
            raise ValueError(
                f"codes must be uint8 [kept rows, {columns}], got {codes.dtype} of shape "
                f"{list(codes.shape)}."
            )
        groups = rows // self.group
        if len(codes) % max(groups, 1) or len(codes) > rows:
            raise ValueError(
                f"codes has {len(codes)} rows, but {groups} groups must keep as many each, at most "
                f"{self.group}."
            )
        object.__setattr__(self, "codes", codes)
        grouped = codes.reshape(groups, -1, columns) if codes.size else codes.reshape(0, 0, 0)
        if (grouped >= self.group).any() or (np.diff(grouped.astype(int), axis=1) <= 0).any():
            raise ValueError(f"codes must be below {self.group} and rise within a group.")

    def _values_shape(self) -> tuple[int, ...]:
        return self.codes.shape

    def positions(self) -> np.ndarray:
        return _nm_positions(self.codes, self.shape, max(self.keep, 1), self.group)

    def _native(self, x: paddle.Tensor) -> paddle.Tensor:
        return kernels.nm_linear(x, self.values, self.codes, group=self.group)


FORMATS = {cls.format: cls for cls in (CSR, COO, BSR, NM)}


def take(dense: paddle.Tensor, places: np.ndarray) -> paddle.Tensor:
    """Elements at ``row * columns + column``, in the shape of ``places``; with gradients."""
    flat = dense.reshape([-1])
    if places.size == 0:
        return paddle.zeros(list(places.shape), dtype=dense.dtype)
    index = paddle.to_tensor(places.reshape(-1).astype(np.int64), place=dense.place)
    return paddle.gather(flat, index).reshape(list(places.shape))


def check_block(block, shape: tuple[int, int]) -> tuple[int, int]:
    """``block`` as two numbers that divide ``shape``."""
    if not isinstance(block, (tuple, list)) or len(block) != 2:
        raise ValueError(f"block must be (rows, columns), got {_checks.shown(block)}.")
    k, n = _checks.whole("block[0]", block[0], 1), _checks.whole("block[1]", block[1], 1)
    if shape[0] % k or shape[1] % n:
        raise ValueError(
            f"block must divide the matrix of {shape[0]} x {shape[1]}, got {k} x {n}; pad the "
            "matrix or take a smaller block."
        )
    return k, n


def block_positions(
    places: np.ndarray, shape: tuple[int, int], block: tuple[int, int]
) -> np.ndarray:
    """Of each element of the blocks ``places`` (block row * block columns + block column)."""
    (k, n), columns = block, shape[1]
    across = max(columns // n, 1)
    first = places // across * (k * columns) + places % across * n
    inside = np.arange(k)[:, None] * columns + np.arange(n)
    return first[:, None, None].astype(np.int64) + inside


def _nm_positions(codes: np.ndarray, shape: tuple[int, int], keep: int, group: int) -> np.ndarray:
    rows = np.arange(len(codes))[:, None] // keep * group + codes
    return rows.astype(np.int64) * shape[1] + np.arange(shape[1])


def _check_group(group: int, rows: int) -> None:
    if not 1 <= _checks.whole("group", group, 1) <= 256:
        raise ValueError(f"group must be in [1, 256], got {group}.")
    if rows % group:
        raise ValueError(f"rows must divide into groups of {group}, got {rows}.")
