"""Codes that send some elements only: the largest of each chunk or of a tensor, or random ones."""

import ctypes
import math
import numbers
from typing import Any

from oarlock.native._codec_arguments import finite, flag, run, seed_number, whole


class CapacityError(ValueError):
    """There are more entries than ``select`` may take; nothing was changed.

    Attributes:
        needed: how many there are.
    """

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(message)
        self.needed = needed


def chunk_topk_size(count: int, *, chunk: int = 4096, k: int) -> int:
    """Number of entries that ``chunk_topk_encode`` takes of ``count`` elements."""
    count, chunk, k = whole("count", count), whole("chunk", chunk, 1), whole("k", k, 1)
    whole_chunks, rest = divmod(count, chunk)
    return whole_chunks * min(k, chunk) + min(k, rest)


def chunk_topk_encode(
    acc: Any,
    indices: Any,
    values: Any,
    *,
    chunk: int = 4096,
    k: int,
    keep: bool = False,
    threads: int | None = None,
) -> None:
    """Send the k largest magnitudes of each chunk, in the order of their positions.

    Of equal magnitudes those at lower positions are taken. NaN is larger than Inf and equal to other
    NaN, so it is always among the first to be sent. A last chunk that is shorter has min(k, its size)
    entries.

    Args:
        acc: float32; with ``keep`` updated in place.
        indices: uint16 [entries], overwritten: positions within the chunks. ``pack_bits`` packs them.
        values: float32 [entries], overwritten.
        chunk: elements of a chunk, up to 65536.
        k: entries of a chunk, up to ``chunk``.
        keep: leave in ``acc`` what was not sent: 0 where it was, NaN where NaN or Inf was.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.

    Source: SparseLoCo, 2508.15706 (chunks).
    """
    options = {"block": whole("chunk", chunk), "k": whole("k", k), "keep": flag("keep", keep)}
    tensors = {"acc": acc, "indices": indices, "values": values}
    run("chunk_topk_encode", tensors, threads=threads, **options)


def chunk_topk_add(
    indices: Any,
    values: Any,
    out: Any,
    *,
    chunk: int = 4096,
    k: int,
    weight: float = 1.0,
    threads: int | None = None,
) -> None:
    """Add what ``chunk_topk_encode`` sent, times a weight.

    Args:
        indices, values, chunk, k: as in ``chunk_topk_encode``. Positions must rise in each chunk.
        out: float32, updated in place.
        weight: finite.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    options = {"block": whole("chunk", chunk), "k": whole("k", k)}
    tensors = {"indices": indices, "values": values, "out": out}
    run("chunk_topk_add", tensors, threads=threads, weight=finite("weight", weight), **options)


def kth_magnitude(acc: Any, k: int, *, threads: int | None = None) -> float:
    """The k-th largest magnitude, exactly, in two passes over memory.

    Args:
        acc: float32, of fewer than 2^32 elements.
        k: from 1 to their number.
        threads: number of threads, as in ``accumulate``.

    Returns:
        It; NaN if there are k NaN or more, since NaN is larger than Inf.

    Raises:
        ValueError: an argument is not as above.
    """
    found = ctypes.c_float()
    run("kth_magnitude", {"acc": acc}, ctypes.byref(found), threads=threads, k=whole("k", k))
    return found.value


def select(
    acc: Any,
    threshold: float,
    indices: Any,
    values: Any,
    *,
    most: int | None = None,
    keep: bool = False,
    threads: int | None = None,
) -> int:
    """Send what reaches a threshold, in the order of positions.

    The k largest magnitudes exactly, of equal ones those at lower positions:
    ``select(acc, kth_magnitude(acc, k), indices, values, most=k)``. NaN reaches every threshold, and
    the threshold NaN is reached by NaN only.

    Args:
        acc: float32, of fewer than 2^32 elements; with ``keep`` updated in place.
        threshold: magnitude, >= 0, rounded to float32.
        indices: uint32, as many as there is room for; the first ones are overwritten.
        values: float32, of as many elements.
        most: entries to take at most, leaving out later ones of those that equal the threshold.
            None for all.
        keep: leave in ``acc`` what was not sent: 0 where it was, NaN where NaN or Inf was.
        threads: number of threads, as in ``accumulate``.

    Returns:
        Number of entries.

    Raises:
        CapacityError: there are more than ``indices`` has room for, or more above the threshold than
            ``most``; nothing was changed. It is a ValueError, and its ``needed`` is their number.
        ValueError: an argument is not as above; nothing was changed.

    Source: Deep gradient compression, 1712.01887.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, numbers.Real) or threshold < 0:
        raise ValueError(f"threshold must be a number >= 0, not {threshold!r}")
    if not math.isinf(threshold) and math.isinf(ctypes.c_float(threshold).value):
        raise ValueError(f"threshold must be within the range of float32, not {threshold!r}")
    limit = -1 if most is None else whole("most", most)
    counts = (ctypes.c_int64 * 3)()
    options = {"threshold": float(threshold), "most": limit, "keep": flag("keep", keep)}
    tensors = {"acc": acc, "indices": indices, "values": values}
    run("select", tensors, counts, threads=threads, **options)
    found, above, room = counts
    if most is not None and above > limit:
        raise CapacityError(
            f"most is {most}, but {above} magnitudes are above the threshold {threshold!r}; "
            "raise one of them",
            above,
        )
    if found > room:
        raise CapacityError(
            f"indices has {room} elements, but {found} magnitudes reach the threshold "
            f"{threshold!r}; make it longer, or raise threshold",
            found,
        )
    return found


def select_add(
    indices: Any, values: Any, out: Any, weight: float = 1.0, *, threads: int | None = None
) -> None:
    """Add entries, times a weight.

    Args:
        indices: uint32 [entries], rising: what ``select`` wrote, cut to what it returned.
        values: float32 [entries].
        out: float32, updated in place.
        weight: finite.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    tensors = {"indices": indices, "values": values, "out": out}
    run("select_add", tensors, threads=threads, weight=finite("weight", weight))


def random_k(
    acc: Any,
    values: Any,
    *,
    seed: int,
    scale: float = 1.0,
    keep: bool = False,
    threads: int | None = None,
) -> None:
    """Send elements at random positions, which need not be sent: both ends know them by the seed.

    The n elements stand in a circle that begins at a place of the seed's. It is divided into k arcs as
    equal as may be, and each gives the element at a place that a hash of seed and arc decides: k
    distinct positions, and each element is among them with probability k / n. So ``scale=n / k``
    makes the decoded tensor's mean over seeds the tensor itself (without ``keep``); error feedback
    takes ``scale=1``.

    Elements at other positions are not looked at: a NaN there is not sent. With ``keep`` it stays, and
    is sent when its turn comes.

    Args:
        acc: float32, of fewer than 2^32 elements; with ``keep`` updated in place.
        values: float32 [k], k <= n, overwritten: ``scale`` times what stands there.
        seed: an integer in [0, 2^64), the same on both ends and another one for each step.
        scale: finite.
        keep: leave in ``acc`` what was not sent.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    options = {"seed": seed_number(seed), "weight": finite("scale", scale)}
    tensors = {"acc": acc, "values": values}
    run("random_k", tensors, threads=threads, keep=flag("keep", keep), **options)


def random_k_add(
    values: Any, out: Any, *, seed: int, weight: float = 1.0, threads: int | None = None
) -> None:
    """Add what ``random_k`` sent, times a weight.

    Args:
        values: float32 [k].
        out: float32 of as many elements as ``acc`` had, updated in place.
        seed: the same.
        weight: finite.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    options = {"seed": seed_number(seed), "weight": finite("weight", weight)}
    run("random_k_add", {"values": values, "out": out}, threads=threads, **options)
