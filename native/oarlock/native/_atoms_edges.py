"""Sums over edges, and elementwise functions of rows."""

import ctypes
from typing import Any

from oarlock.native import threads as _threads
from oarlock.native._atoms_arguments import Call

ACTIVATIONS = ("shifted_softplus", "silu")

_CONVOLVE = Call("filter_sums", "features filters first second out")
_MULTIPLY = Call("multiply", "a b first second out")
_GATHER = Call("gather", "values index out")
_SCATTER_SUM = Call("scatter_sum", "values index out")
_ROW_DOTS = Call("row_dots", "x y out")
_SCALE_ROWS = Call("scale_rows", "x factors out")
_COLUMN_SUMS = Call("column_sums", "x out")
_ACTIVATION = Call("activation", "x bias g h out")


def convolve(
    features: Any,
    filters: Any,
    first: Any,
    second: Any,
    out: Any,
    *,
    both: int = 0,
    threads: int | None = None,
) -> None:
    r"""Features of neighbours times filters, summed up at each atom.

    .. math:: y_i = \sum_{p:\, first_p = i} x_{second_p} \circ w_p

    The first ``both`` pairs act from either end with the same filter, as if they stood there a second
    time with first and second exchanged.

    Args:
        features: x, [N, channels, F] float32 or float64.
        filters: w, [P, F], the same for all channels.
        first: [P] int64, below M.
        second: [P] int64, below N.
        out: y, [M, channels, F], overwritten.
        both: how many pairs act from either end; M = N if any.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It does
            not change the result.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    _CONVOLVE([features, filters, first, second, out], _long(both), _threads.count(threads))


def multiply(
    a: Any, b: Any, first: Any, second: Any, out: Any, *, both: int = 0, threads: int | None = None
) -> None:
    r"""For each pair the product of two atoms' features: ``convolve``'s gradient by the filters.

    .. math:: w_p = \sum_{channels} a_{first_p} \circ b_{second_p}

    and for the first ``both`` pairs also :math:`a_{second_p} \circ b_{first_p}`.

    Args:
        a: [N, channels, F] float32 or float64.
        b: [M, channels, F].
        first, second: [P] int64, below N and M.
        out: w, [P, F], overwritten.
        both, threads: as in ``convolve``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    _MULTIPLY([a, b, first, second, out], _long(both), _threads.count(threads))


def gather(values: Any, index: Any, out: Any, *, threads: int | None = None) -> None:
    """Rows by number: values [N, F], index [E] int64, out [E, F]."""
    _GATHER([values, index, out], _threads.count(threads))


def scatter_sum(values: Any, index: Any, out: Any, *, threads: int | None = None) -> None:
    """Sums of the rows with the same number: values [E, F], index [E] int64, out [N, F]."""
    _SCATTER_SUM([values, index, out], _threads.count(threads))


def row_dots(x: Any, y: Any, out: Any, *, threads: int | None = None) -> None:
    """The product of each row of x with that of y: [E, F] both, out [E]."""
    _ROW_DOTS([x, y, out], _threads.count(threads))


def scale_rows(x: Any, factors: Any, out: Any, *, threads: int | None = None) -> None:
    """Each row times its factor: x [E, F], factors [E], out [E, F]."""
    _SCALE_ROWS([x, factors, out], _threads.count(threads))


def column_sums(x: Any, out: Any) -> None:
    """The sum of all rows: x [E, F], out [F]."""
    _COLUMN_SUMS([x, out])


def activation(
    x: Any,
    out: Any,
    *,
    name: str,
    order: int = 0,
    bias: Any = None,
    g: Any = None,
    h: Any = None,
    threads: int | None = None,
) -> None:
    r"""An activation or a derivative of it, :math:`f^{(order)}(x + b) \circ g \circ h`.

    Args:
        x: [E, F] float32 or float64.
        out: [E, F], overwritten.
        name: "shifted_softplus", ln(eˣ / 2 + 1 / 2), or "silu", x / (1 + e⁻ˣ).
        order: of the derivative, 0 to 3.
        bias: b, [F]; None for 0.
        g, h: factors [E, F]; None for 1.
        threads: as in ``convolve``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    silu = activation_code(name)
    _ACTIVATION([x, bias, g, h, out], silu, order, _threads.count(threads))


def activation_code(name: str) -> int:
    if name not in ACTIVATIONS:
        raise ValueError(f"name must be one of {', '.join(ACTIVATIONS)}, not {name!r}")
    return ACTIVATIONS.index(name)


def _long(number: int) -> Any:
    return ctypes.c_int64(number)
