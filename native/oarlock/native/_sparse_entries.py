"""Products with matrices of single entries: CSR, N:M, and activations of which most are zero."""

import math
import numbers
from typing import Any

import numpy as np

from oarlock.native._sparse_arguments import call, flag, options, run


def csr_matmul(
    pointers: Any,
    indices: Any,
    values: Any,
    dense: Any,
    out: Any,
    *,
    transpose: bool = False,
    transpose_dense: bool = False,
    transpose_out: bool = False,
    threads: int | None = None,
) -> None:
    r"""Product of a sparse matrix and a dense one, :math:`S D`, or :math:`S^\top D`.

    S is [R, C]: row r has the entries ``pointers[r]`` to ``pointers[r + 1]``, of which entry p stands
    in column ``indices[p]``. Activations that are mostly zero are such an S. For sparse weights W
    and activations X in rows, :math:`X W = (W^\top X^\top)^\top`: all three transposed. Entries that
    are not kept cost nothing; neither does a NaN opposite to them show.

    Args:
        pointers: [R + 1] int32, rising from 0 to the number of entries.
        indices: [entries] int32, rising within each row.
        values: [entries] float32.
        dense: D, [C, N] float32, with ``transpose`` [R, N]; its transpose with ``transpose_dense``.
        out: [R, N] float32, with ``transpose`` [C, N]; its transpose with ``transpose_out``;
            overwritten.
        transpose: use S transposed.
        transpose_dense: ``dense`` is [N, C].
        transpose_out: ``out`` is [N, R].
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It
            does not change the result.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    given = options(
        transpose=flag("transpose", transpose),
        transpose_dense=flag("transpose_dense", transpose_dense),
        transpose_out=flag("transpose_out", transpose_out),
    )
    tensors = {"pointers": pointers, "indices": indices, "values": values, "dense": dense}
    run("csr_matmul", tensors | {"out": out}, given, threads=threads)


def csr_sample(
    a: Any,
    b: Any,
    pointers: Any,
    indices: Any,
    out: Any,
    *,
    transpose: bool = False,
    threads: int | None = None,
) -> None:
    r"""The entries of :math:`A B^\top`, or of :math:`A^\top B`, that a structure keeps.

    Args:
        a: [R, L] float32, with ``transpose`` [L, R].
        b: [C, L] float32, with ``transpose`` [L, C].
        pointers, indices: the structure of a matrix [R, C], as in ``csr_matmul``.
        out: [entries] float32, overwritten.
        transpose: sum over the first axes.
        threads: number of threads, as in ``csr_matmul``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    tensors = {"a": a, "b": b, "pointers": pointers, "indices": indices, "out": out}
    run("csr_sample", tensors, options(transpose=flag("transpose", transpose)), threads=threads)


def csr_from_dense(
    x: Any, *, above: float | None = None, threads: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    r"""The entries of a dense matrix that are not zero, or those above a threshold, less it.

    With ``above=0`` the entries of :math:`\max(x, 0)`. NaN is kept.

    Args:
        x: [R, C] float32.
        above: threshold; None keeps what is not 0.
        threads: number of threads, as in ``csr_matmul``.

    Returns:
        pointers [R + 1] int32, indices [entries] int32, values [entries] float32.

    Raises:
        ValueError: an argument is not as above, or 2^31 entries or more are kept.
    """
    if above is not None and (
        isinstance(above, bool) or not isinstance(above, numbers.Real) or not math.isfinite(above)
    ):
        raise ValueError(f"above must be a finite number or None, not {above!r}")
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) != 2:
        raise ValueError(f"x must be a matrix [rows, columns], not of shape {list(shape)}")
    given = options(above=int(above is not None), least=float(above or 0.0))
    pointers = np.empty(shape[0] + 1, np.int32)
    run("csr_count", {"x": x, "pointers": pointers}, given, threads=threads)
    indices, values = np.empty(pointers[-1], np.int32), np.empty(pointers[-1], np.float32)
    tensors = {"x": x, "pointers": pointers, "indices": indices, "values": values}
    run("csr_fill", tensors, given, threads=threads)
    return pointers, indices, values


def csr_transpose(
    pointers: Any, indices: Any, *, columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The structure of the transpose of a sparse matrix.

    Args:
        pointers, indices: the structure, as in ``csr_matmul``.
        columns: number of its columns.

    Returns:
        Its pointers [columns + 1] and indices [entries], and which entry of the given matrix each of
        its entries is: ``values[entries]`` are its values.

    Raises:
        ValueError: an argument is not as above.
    """
    if isinstance(columns, bool) or not isinstance(columns, numbers.Integral) or columns < 0:
        raise ValueError(f"columns must be an integer >= 0, not {columns!r}")
    shape = tuple(getattr(indices, "shape", ()))
    count = shape[0] if len(shape) == 1 else 0  # another shape is refused below
    found = np.empty(int(columns) + 1, np.int32), np.empty(count, np.int32)
    entries = np.empty(count, np.int32)
    tensors = {"pointers": pointers, "indices": indices, "out_pointers": found[0]}
    call("csr_transpose", tensors | {"out_indices": found[1], "entries": entries})
    return (*found, entries)


def nm_matmul(
    x: Any,
    codes: Any,
    values: Any,
    out: Any,
    *,
    group: int = 4,
    transpose: bool = False,
    threads: int | None = None,
) -> None:
    r"""Product of a matrix and an N:M-sparse one, :math:`X W`, or :math:`X W^\top`.

    W is [K, N]; in every column each group of M = ``group`` neighbouring rows keeps the same number
    of entries, 2 of 4 for example.

    Args:
        x: [M, K] float32, with ``transpose`` [M, N].
        codes: [kept, N] uint8: which rows of their groups are kept, rising within a group.
        values: [kept, N] float32.
        out: [M, N] float32, with ``transpose`` [M, K]; overwritten.
        group: rows of a group, 1 to 256.
        transpose: multiply by the transpose of W.
        threads: number of threads, as in ``csr_matmul``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    given = options(group=_group(group), transpose=flag("transpose", transpose))
    tensors = {"x": x, "codes": codes, "values": values, "out": out}
    run("nm_matmul", tensors, given, threads=threads)


def nm_sample(
    a: Any, b: Any, codes: Any, out: Any, *, group: int = 4, threads: int | None = None
) -> None:
    r"""The entries of :math:`A^\top B` that an N:M matrix keeps: the gradient of its values.

    Args:
        a: [M, K] float32.
        b: [M, N] float32.
        codes: [kept, N] uint8, as in ``nm_matmul``.
        out: [kept, N] float32, overwritten.
        group: rows of a group.
        threads: number of threads, as in ``csr_matmul``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    tensors = {"a": a, "b": b, "codes": codes, "out": out}
    run("nm_sample", tensors, options(group=_group(group)), threads=threads)


def _group(group: int) -> int:
    if isinstance(group, bool) or not isinstance(group, numbers.Integral) or not 1 <= group <= 256:
        raise ValueError(f"group must be an integer in [1, 256], not {group!r}")
    return int(group)
