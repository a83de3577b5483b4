"""Passes of the power method over a matrix, each of which reads it once."""

from typing import Any

from oarlock.native._codec_arguments import ABSENT, run


def low_rank_take(
    acc: Any,
    out: Any = None,
    onto: Any = None,
    *,
    gradient: Any = None,
    left: Any = None,
    right: Any = None,
    threads: int | None = None,
) -> None:
    r"""Take out what was sent, add a gradient, and project: :math:`A \leftarrow (A - L R^\top) + G`, :math:`O = A\,Q`.

    One pass in place of three. Sums are float32 in a fixed order. NaN and Inf of the gradient reach
    their place of ``acc`` and their row of ``out``.

    Args:
        acc: float32 [rows, columns], updated in place.
        out: float32 [rows, r], overwritten; None with ``onto`` None, where nothing is projected.
        onto: Q, float32 [columns, r], r <= 64.
        gradient: float32 of as many elements as ``acc``; None for nothing.
        left, right: float32 [rows, s] and [columns, s], s <= 64; None, both, for nothing.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.

    Source: PowerSGD with error feedback, 1905.13727.
    """
    for names, one, other in (("out and onto", out, onto), ("left and right", left, right)):
        if (one is None) != (other is None):
            raise ValueError(f"{names} must both be given, or neither")
    optional = {"gradient": gradient, "left": left, "right": right, "onto": onto, "out": out}
    given = {name: ABSENT if one is None else one for name, one in optional.items()}
    run("low_rank_take", {"acc": acc} | given, threads=threads)


def low_rank_back(acc: Any, left: Any, out: Any, *, threads: int | None = None) -> None:
    r"""The other half of the power method's step: :math:`O = A^\top L`.

    Sums are float32, in the order of rows.

    Args:
        acc: float32 [rows, columns].
        left: float32 [rows, r], r <= 64; orthonormal columns, as a rule.
        out: float32 [columns, r], overwritten.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    run("low_rank_back", {"acc": acc, "left": left, "out": out}, threads=threads)


def low_rank_product(left: Any, right: Any, out: Any, *, threads: int | None = None) -> None:
    r"""What was sent: :math:`O = L R^\top`, with the bits that ``low_rank_take`` takes out.

    Args:
        left, right: float32 [rows, r] and [columns, r], r <= 64.
        out: float32 [rows, columns], overwritten.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    run("low_rank_product", {"left": left, "right": right, "out": out}, threads=threads)
