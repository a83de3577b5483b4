"""The blockwise Walsh-Hadamard transform."""

import ctypes
from typing import Any

from oarlock.native import threads as _threads
from oarlock.native._lowp_arguments import read
from oarlock.native._optim_arguments import run


def hadamard(x: Any, out: Any, *, block: int, threads: int | None = None) -> None:
    r"""Orthonormal Walsh–Hadamard transform of each block along the last axis.

    .. math::
        y = x\, (I \otimes H_B), \quad H_1 = 1, \quad
        H_{2n} = \tfrac{1}{\sqrt2} \begin{pmatrix} H_n & H_n \\ H_n & -H_n \end{pmatrix}

    It spreads outliers over their block, and is its own inverse: of :math:`a` and :math:`b^T` it
    leaves the product :math:`ab` as it is, but makes both easier to round.

    Args:
        x: float32 or bfloat16 of any shape [..., n], contiguous.
        out: of x's shape, float32 or bfloat16, other memory.
        block: :math:`B`, a power of 2 that divides n.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores.

    Raises:
        ValueError: an argument is not as above.

    Source: Ashkboos et al., QuaRot, 2404.00456.
    """
    if isinstance(block, bool) or not isinstance(block, int) or block < 1:
        raise ValueError(f"block must be a power of 2, not {block!r}")
    lists = [read("x", x), read("out", out)]
    run("oarlock_lowp_hadamard", lists, ctypes.c_int64(block), _threads.count(threads))
