"""Sums over edges in float64, edge by edge; arguments are those of the kernels, results are returned."""

import numpy as np


def _both(first, second, both: int):
    """Pairs that act from either end stand there twice."""
    rows = np.concatenate([np.arange(len(first)), np.arange(both)])
    return (
        np.concatenate([first, second[:both]]),
        np.concatenate([second, first[:both]]),
        rows,
    )


def convolve(features, filters, first, second, *, atoms: int, both: int = 0):
    first, second, rows = _both(first, second, both)
    out = np.zeros((atoms, *features.shape[1:]))
    messages = features.astype(np.float64)[second] * filters.astype(np.float64)[rows, None, :]
    np.add.at(out, first, messages)
    return out


def multiply(a, b, first, second, *, both: int = 0):
    pairs = len(first)
    first, second, rows = _both(first, second, both)
    out = np.zeros((pairs, a.shape[-1]))
    np.add.at(out, rows, (a.astype(np.float64)[first] * b.astype(np.float64)[second]).sum(1))
    return out


def gather(values, index):
    return values[index]


def scatter_sum(values, index, *, rows: int):
    out = np.zeros((rows, values.shape[1]))
    np.add.at(out, index, values.astype(np.float64))
    return out


def activation(x, *, name: str, order: int = 0, bias=0.0, g=1.0, h=1.0):
    x = np.asarray(x, dtype=np.float64) + bias
    return derivatives(x, name)[order] * g * h


def derivatives(x, name: str) -> list[np.ndarray]:
    """The activation at x and its first three derivatives."""
    s = np.where(x < 0, np.exp(np.minimum(x, 0)), 1.0) / (1 + np.exp(-np.abs(x)))
    ds = s * (1 - s)
    dds = ds * (1 - 2 * s)
    if name == "shifted_softplus":
        return [np.logaddexp(0, x) - np.log(2), s, ds, dds]
    return [x * s, s + x * ds, 2 * ds + x * dds, 3 * dds + x * ds * (1 - 6 * ds)]
