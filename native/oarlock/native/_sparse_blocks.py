"""Products with matrices of dense blocks, in BSR."""

from typing import Any

from oarlock.native._sparse_arguments import flag, options, run


def bsr_matmul(
    x: Any,
    pointers: Any,
    indices: Any,
    values: Any,
    out: Any,
    *,
    transpose: bool = False,
    threads: int | None = None,
) -> None:
    r"""Product of a matrix and a block-sparse one, :math:`X W`, or :math:`X W^\top`.

    W is [K, N] in blocks [k, n]: block row i has the blocks ``pointers[i]`` to ``pointers[i + 1]``,
    of which block p stands in block column ``indices[p]``. Blocks that are not kept cost nothing;
    neither does a NaN opposite to them show.

    Args:
        x: [M, K], with ``transpose`` [M, N]; float32, as all that follows but the structure.
        pointers: [K / k + 1] int32, rising from 0 to the number of blocks.
        indices: [blocks] int32, rising within each block row.
        values: [blocks, k, n]. Fastest where n (with ``transpose``, k) is a multiple of 16.
        out: [M, N], with ``transpose`` [M, K]; overwritten.
        transpose: multiply by the transpose of W, as the gradient of x needs.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It
            does not change the result.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    tensors = {"x": x, "pointers": pointers, "indices": indices, "values": values, "out": out}
    given = options(transpose=flag("transpose", transpose))
    run("bsr_matmul", tensors, given, threads=threads)


def bsr_sample(
    a: Any, b: Any, pointers: Any, indices: Any, out: Any, *, threads: int | None = None
) -> None:
    r"""The blocks of :math:`A^\top B` that a structure keeps: the gradient of a block-sparse matrix.

    With x and the gradient of ``bsr_matmul``'s result, the gradient of its values.

    Args:
        a: [M, K] float32.
        b: [M, N] float32.
        pointers, indices: the structure, as in ``bsr_matmul``.
        out: [blocks, k, n] float32, overwritten.
        threads: number of threads, as in ``bsr_matmul``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    tensors = {"a": a, "b": b, "pointers": pointers, "indices": indices, "out": out}
    run("bsr_sample", tensors, threads=threads)
