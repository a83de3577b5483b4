"""The operators by kernels where there are some: tensors on a CPU, run operator by operator.

Elsewhere (a GPU, programs that are traced or exported, other dtypes) they are those of `plain`.
"""

from collections.abc import Sequence

import paddle
from paddle import Tensor

from oarlock.native.paddle import atoms
from oarlock.sci_md.ops import plain
from oarlock.sci_md.ops.plain import Radial

_KERNELS = (paddle.float32, paddle.float64)


def has_kernels(x: Tensor) -> bool:
    return paddle.in_dynamic_mode() and x.dtype in _KERNELS and x.place.is_cpu_place()


def gather(features: Tensor, index: Tensor) -> Tensor:
    """See `plain.gather`."""
    return (atoms if has_kernels(features) else plain).gather(features, index)


def scatter_sum(values: Tensor, index: Tensor, count: int) -> Tensor:
    """See `plain.scatter_sum`."""
    return (atoms if has_kernels(values) else plain).scatter_sum(values, index, count)


def convolve(
    features: Tensor, filters: Tensor, first: Tensor, second: Tensor, *, count: int, both: int = 0
) -> Tensor:
    """See `plain.convolve`."""
    function = (atoms if has_kernels(filters) else plain).convolve
    return function(features, filters, first, second, count=count, both=both)


def activation(x: Tensor, name: str, bias: Tensor | None = None) -> Tensor:
    """See `plain.activation`."""
    return (atoms if has_kernels(x) else plain).activation(x, name, bias)


def shifted_softplus(x: Tensor) -> Tensor:
    """See `plain.shifted_softplus`."""
    return atoms.activation(x, "shifted_softplus") if has_kernels(x) else plain.shifted_softplus(x)


def silu(x: Tensor) -> Tensor:
    """x / (1 + e⁻ˣ)."""
    return activation(x, "silu")


def radial_filters(
    distances: Tensor,
    radial: Radial,
    parameters: Tensor,
    layers: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """See `plain.radial_filters`. A basis whose parameters are trained is computed there."""
    use = has_kernels(distances) and parameters.stop_gradient and len(layers) <= 2
    return (atoms if use else plain).radial_filters(distances, radial, parameters, layers)
