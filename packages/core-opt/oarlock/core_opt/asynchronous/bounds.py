r"""What delay must cost: the time no method beats, and the constants with which Ringmaster meets it.

Notation: f is L-smooth (``smoothness``), ``gap`` is :math:`\Delta = f(x_0) - \inf f`, stochastic
gradients have the variance :math:`\sigma^2` (``variance``), and the goal is
:math:`E\|\nabla f\|^2 \le \epsilon` (``target``). Worker i needs :math:`\tau_i` seconds a gradient.
Derivations: ``docs/topics/1.1.md``.
"""

import math
from collections.abc import Sequence

import numpy as np

from .. import _checks


def threshold(*, variance: float, target: float) -> int:
    r"""Delay from which gradients are discarded, :math:`R = \max(1, \lceil\sigma^2/\epsilon\rceil)`.

    Source: 2501.16168.
    """
    return max(
        1, math.ceil(_checks.non_negative("variance", variance) / _positive("target", target))
    )


def step_size(*, smoothness: float, variance: float, target: float, threshold: int) -> float:
    r"""Step size of Ringmaster's theorem, :math:`\min(1 / (2RL), \epsilon / (4L\sigma^2))`.

    Source: 2501.16168.
    """
    smoothness = _positive("smoothness", smoothness)
    step = 1 / (2 * _checks.whole("threshold", threshold, 1) * smoothness)
    if _checks.non_negative("variance", variance):
        step = min(step, _positive("target", target) / (4 * smoothness * variance))
    return step


def iterations(
    *, smoothness: float, gap: float, variance: float, target: float, threshold: int
) -> int:
    r"""Updates after which the mean of :math:`E\|\nabla f(x_k)\|^2` is at most the target.

    :math:`\lceil 8RL\Delta/\epsilon + 16\sigma^2 L\Delta/\epsilon^2 \rceil`, with ``step_size``.

    Source: 2501.16168, theorem 4.1.
    """
    scale = _positive("smoothness", smoothness) * _checks.non_negative("gap", gap)
    scale /= _positive("target", target)
    rounds = _checks.whole("threshold", threshold, 1)
    variance = _checks.non_negative("variance", variance)
    return math.ceil(8 * rounds * scale + 16 * scale * variance / target)


def seconds_for_updates(seconds: Sequence[float], threshold: int) -> float:
    r"""Time in which Ringmaster, which stops late computations, makes R updates in a row.

    .. math::
        t(R) = 2 \min_m \Big(\sum_{i \le m} \tfrac1{\tau_i}\Big)^{-1} (R + m)

    for workers sorted by speed. Source: 2501.16168, lemma 4.1.
    """
    taus, rates = _sorted(seconds)
    counts = np.arange(1, len(taus) + 1)
    return float(2 * ((_checks.whole("threshold", threshold, 1) + counts) / rates).min())


def lower_bound(
    seconds: Sequence[float], *, smoothness: float, gap: float, variance: float, target: float
) -> float:
    r"""Seconds that every first-order method with zero-respecting steps needs, up to a constant.

    .. math::
        T(\epsilon) = \min_m \Big(\tfrac1m \sum_{i \le m} \tfrac1{\tau_i}\Big)^{-1}
        \Big(\frac{L\Delta}{\epsilon} + \frac{\sigma^2 L\Delta}{m\,\epsilon^2}\Big)

    Args:
        seconds: :math:`\tau_i` > 0 of each worker, in any order.

    Source: Tyurin & Richtárik, 2305.12387.
    """
    taus, rates = _sorted(seconds)
    counts = np.arange(1, len(taus) + 1)
    scale = _positive("smoothness", smoothness) * _checks.non_negative("gap", gap)
    scale /= _positive("target", target)
    noise = _checks.non_negative("variance", variance) / target
    return float((counts / rates * scale * (1 + noise / counts)).min())


def fastest_workers(seconds: Sequence[float], *, variance: float, target: float) -> int:
    """The number m of fastest workers at which ``lower_bound`` is least."""
    taus, rates = _sorted(seconds)
    counts = np.arange(1, len(taus) + 1)
    noise = _checks.non_negative("variance", variance) / _positive("target", target)
    return int(np.argmin((counts + noise) / rates)) + 1


def _positive(name: str, value: float) -> float:
    return _checks.real(name, value, 0.0, math.inf, open_low=True, open_high=True)


def _sorted(seconds: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds in rising order, and the gradients a second of the fastest 1, 2, … workers."""
    taus = np.sort(np.asarray(seconds, dtype=np.float64))
    if taus.ndim != 1 or not taus.size or not (taus > 0).all() or not np.isfinite(taus).all():
        raise ValueError(
            f"seconds must hold numbers > 0, one a worker, got {_checks.shown(seconds)}."
        )
    return taus, np.cumsum(1 / taus)
