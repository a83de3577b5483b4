"""Oracle of ``oarlock.native.sparse``: every sparse matrix is made dense and multiplied in float64.

Arguments are those of the kernels; results are returned.
"""

import numpy as np

Array = np.ndarray


def _rows(pointers: Array) -> Array:
    """The row of each entry."""
    return np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))


def bsr_dense(pointers: Array, indices: Array, values: Array, columns: int) -> Array:
    """A matrix of blocks [blocks, k, n] with ``columns`` columns, float64."""
    _, k, n = values.shape
    dense = np.zeros((len(pointers) - 1, columns // n, k, n))
    dense[_rows(pointers), indices] = values
    return dense.transpose(0, 2, 1, 3).reshape((len(pointers) - 1) * k, columns)


def bsr_matmul(x, pointers, indices, values, *, columns: int, transpose: bool = False) -> Array:
    w = bsr_dense(pointers, indices, values, columns)
    return x.astype(np.float64) @ (w.T if transpose else w)


def bsr_sample(a, b, pointers, indices, *, block: tuple[int, int]) -> Array:
    k, n = block
    full = a.astype(np.float64).T @ b.astype(np.float64)
    blocks = full.reshape(len(pointers) - 1, k, b.shape[1] // n, n).transpose(0, 2, 1, 3)
    return blocks[_rows(pointers), indices]


def csr_dense(pointers: Array, indices: Array, values: Array, columns: int) -> Array:
    """A matrix of single entries with ``columns`` columns, float64."""
    dense = np.zeros((len(pointers) - 1, columns))
    dense[_rows(pointers), indices] = values
    return dense


def csr_matmul(
    pointers,
    indices,
    values,
    dense,
    *,
    columns: int,
    transpose: bool = False,
    transpose_dense: bool = False,
    transpose_out: bool = False,
) -> Array:
    s = csr_dense(pointers, indices, values, columns)
    d = dense.astype(np.float64)
    out = (s.T if transpose else s) @ (d.T if transpose_dense else d)
    return out.T if transpose_out else out


def csr_sample(a, b, pointers, indices, *, transpose: bool = False) -> Array:
    a, b = a.astype(np.float64), b.astype(np.float64)
    full = a.T @ b if transpose else a @ b.T
    return full[_rows(pointers), indices]


def csr_from_dense(x: Array, *, above: float | None = None) -> tuple[Array, Array, Array]:
    kept = x != 0 if above is None else ~(x <= np.float32(above))
    rows, indices = np.nonzero(kept)
    pointers = np.concatenate([[0], np.cumsum(kept.sum(1))])
    return pointers, indices, x[rows, indices] - np.float32(above or 0)


def csr_transpose(pointers, indices, *, columns: int) -> tuple[Array, Array, Array]:
    order = np.argsort(indices, kind="stable")
    counts = np.bincount(indices, minlength=columns)
    return np.concatenate([[0], np.cumsum(counts)]), _rows(pointers)[order], order


def nm_dense(codes: Array, values: Array, rows: int, group: int = 4) -> Array:
    """An N:M matrix with ``rows`` rows, float64."""
    kept, columns = codes.shape
    of_group = kept * group // rows if rows else 1
    dense = np.zeros((rows, columns))
    places = np.arange(kept)[:, None] // max(of_group, 1) * group + codes
    dense[places, np.arange(columns)] = values
    return dense


def nm_matmul(x, codes, values, *, rows: int, group: int = 4, transpose: bool = False) -> Array:
    w = nm_dense(codes, values, rows, group)
    return x.astype(np.float64) @ (w.T if transpose else w)


def nm_sample(a, b, codes, *, group: int = 4) -> Array:
    full = a.astype(np.float64).T @ b.astype(np.float64)
    kept, columns = codes.shape
    of_group = max(kept * group // full.shape[0], 1) if full.shape[0] else 1
    places = np.arange(kept)[:, None] // of_group * group + codes
    return full[places, np.arange(columns)]
