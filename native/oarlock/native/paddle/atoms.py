"""Sums over edges and radial filters with gradients, for float32 and float64 tensors on the CPU.

Everything can be differentiated twice, as training by forces needs: forces are a derivative of the
energy. The same function of Paddle's own operators takes several times as long on a CPU.

>>> from oarlock.native.paddle import atoms
>>> filters = atoms.radial_filters(distances, atoms.Radial(cutoff=5.0), centers, [(w1, b1), (w2, b2)])
>>> y = atoms.convolve(features, filters, first, second, count=len(features))
"""

from collections.abc import Sequence

from paddle import Tensor

from oarlock.native._atoms_radial import Radial
from oarlock.native.paddle import _atoms_forms as forms
from oarlock.native.paddle import _atoms_radial as _radial
from oarlock.native.paddle._atoms_radial import without_distances, without_weights

__all__ = [
    "Radial",
    "activation",
    "convolve",
    "gather",
    "radial_filters",
    "scatter_sum",
    "without_distances",
    "without_weights",
]


def gather(values: Tensor, index: Tensor) -> Tensor:
    """Rows by number. values: [N, ...], index: [E] int64 → [E, ...].

    Raises:
        ValueError: a number is not a row's, or a tensor is of another type.
    """
    if len(values.shape) == 2:
        return forms.apply_to(forms.Gather, (values,), index)
    rows = values.reshape([values.shape[0], _size(values)])
    flat = forms.apply_to(forms.Gather, (rows,), index)
    return flat.reshape([index.shape[0], *values.shape[1:]])


def scatter_sum(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Sums of the rows with the same number. values: [E, ...], index: [E] int64 → [count, ...].

    Raises:
        ValueError: a number is not below `count`, or a tensor is of another type.
    """
    if len(values.shape) == 2:
        return forms.apply_to(forms.ScatterSum, (values,), index, count)
    rows = values.reshape([values.shape[0], _size(values)])
    flat = forms.apply_to(forms.ScatterSum, (rows,), index, count)
    return flat.reshape([count, *values.shape[1:]])


def _size(values: Tensor) -> int:
    """Numbers in a row."""
    size = 1
    for extent in values.shape[1:]:
        size *= extent
    return size


def convolve(
    features: Tensor, filters: Tensor, first: Tensor, second: Tensor, *, count: int, both: int = 0
) -> Tensor:
    """Features of neighbours times filters, summed up at each atom: `oarlock.native.atoms.convolve`.

    Args:
        features: [N, F] or [N, channels, F].
        filters: [P, F], the same for all channels.
        first: [P] int64, the atoms that sums are for, below `count`.
        second: [P] int64, below N.
        count: atoms that sums are for.
        both: the first so many pairs act from either end.

    Returns:
        [count, F] or [count, channels, F].

    Raises:
        ValueError: an argument is not as above.
    """
    fixed = (first, second, both, count, features.shape[0])
    if len(features.shape) == 3:
        return forms.apply_to(forms.Convolve, (features, filters), fixed)
    return forms.apply_to(forms.Convolve, (features.unsqueeze(1), filters), fixed).squeeze(1)


def activation(x: Tensor, name: str, bias: Tensor | None = None) -> Tensor:
    """f(x + bias): "shifted_softplus" or "silu".

    Args:
        x: of any shape; [..., F] with a bias.
        name: of the function f.
        bias: [F].

    Raises:
        ValueError: an unknown name, or a tensor of another type.
    """
    rows = x if len(x.shape) == 2 else x.reshape([-1, x.shape[-1] if x.shape else 1])
    given = (rows,) if bias is None else (rows, bias)
    out = forms.apply_to(forms.Activation, given, name)
    return out if rows is x else out.reshape(x.shape)


def radial_filters(
    distances: Tensor,
    radial: Radial,
    parameters: Tensor,
    layers: Sequence[tuple[Tensor, Tensor]],
) -> Tensor:
    """The filter of each edge, a small network of its length.

    Args:
        distances: r, [P]; not 0 with Bessel functions.
        radial: what filters are made of.
        parameters: centres or frequencies of the basis [K], without a gradient.
        layers: weight and bias of the last layer, [K, F] and [F], or of a hidden layer before it too,
            [K, H] and [H], then [H, F] and [F].

    Returns:
        [P, F], twice differentiable by the distances, and by the weights both itself and its first
        derivative by the distances.

    Raises:
        ValueError: an argument is not as above.
    """
    return _radial.radial_filters(distances, radial, parameters, list(layers))
