"""Operators that potentials are made of, each twice differentiable.

`plain` has them as compositions of Paddle's own operators: any device, and programs that are exported.
"""

from oarlock.sci_md.ops.plain import (
    bessel_basis,
    cosine_cutoff,
    gather,
    gaussian_basis,
    lengths,
    polynomial_cutoff,
    scatter_sum,
    shifted_softplus,
)

__all__ = [
    "bessel_basis",
    "cosine_cutoff",
    "gather",
    "gaussian_basis",
    "lengths",
    "polynomial_cutoff",
    "scatter_sum",
    "shifted_softplus",
]
