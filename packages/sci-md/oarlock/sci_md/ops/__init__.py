"""Operators that potentials are made of, each twice differentiable.

Kernels compute them for tensors on a CPU (`fast`); `plain` has them as compositions of Paddle's own
operators, for any device and for programs that are exported. Both give the same results.
"""

from oarlock.native.paddle.atoms import Radial, without_distances, without_weights
from oarlock.sci_md.ops.fast import (
    activation,
    convolve,
    gather,
    radial_filters,
    scatter_sum,
    shifted_softplus,
    silu,
)
from oarlock.sci_md.ops.plain import (
    bessel_basis,
    cosine_cutoff,
    gaussian_basis,
    lengths,
    polynomial_cutoff,
)

__all__ = [
    "Radial",
    "activation",
    "bessel_basis",
    "convolve",
    "cosine_cutoff",
    "gather",
    "gaussian_basis",
    "lengths",
    "polynomial_cutoff",
    "radial_filters",
    "scatter_sum",
    "shifted_softplus",
    "silu",
    "without_distances",
    "without_weights",
]
