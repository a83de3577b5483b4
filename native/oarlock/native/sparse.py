"""Products of dense float32 matrices with sparse ones: blocks (BSR), single entries (CSR) and N:M.

Matrices are Paddle's, NumPy's or anything with ``__dlpack__``; contiguous, on the CPU. Activations
are rows, weights are [in, out]. Results are the same bits for any number of threads; sums are chains
of fused multiply-adds where the code path has them, so that portable code rounds differently, and
``csr_sample`` and ``nm_sample`` add up in an order that is the code path's own.

>>> from oarlock.native import sparse
>>> sparse.bsr_matmul(x, pointers, indices, values, out)  # out = x W
>>> sparse.csr_matmul(*sparse.csr_from_dense(hidden), w, out)  # skips the zeros of hidden
"""

from oarlock.native._sparse_blocks import bsr_matmul, bsr_sample
from oarlock.native._sparse_entries import (
    csr_from_dense,
    csr_matmul,
    csr_sample,
    csr_transpose,
    nm_matmul,
    nm_sample,
)

__all__ = [
    "bsr_matmul",
    "bsr_sample",
    "csr_from_dense",
    "csr_matmul",
    "csr_sample",
    "csr_transpose",
    "nm_matmul",
    "nm_sample",
]
