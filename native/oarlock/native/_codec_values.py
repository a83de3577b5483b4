"""Codes that have one for every element: bfloat16, few bits with scales of blocks, signs."""

from collections.abc import Sequence
from typing import Any

from oarlock.native._codec_arguments import ABSENT, finite, flag, run, seed_number, whole


def accumulate(
    acc: Any,
    gradient: Any,
    scale: float = 1.0,
    decay: float = 1.0,
    *,
    threads: int | None = None,
) -> None:
    r"""Add a gradient to what earlier steps left: :math:`a \leftarrow d\,a + s\,g`.

    Args:
        acc: float32, updated in place.
        gradient: float32 or bfloat16, of as many elements.
        scale, decay: finite.
        threads: number of threads; None for Paddle's, or without Paddle the physical cores. It
            does not change the result.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    options = {"weight": finite("scale", scale), "decay": finite("decay", decay)}
    run("accumulate", {"acc": acc, "gradient": gradient}, threads=threads, **options)


def bf16_encode(
    acc: Any,
    code: Any,
    *,
    gradients: Sequence[Any] | None = None,
    keep: bool = False,
    threads: int | None = None,
) -> None:
    """Round to bfloat16, to nearest, ties to even.

    NaN and Inf are sent as they are; what is above 3.39e38 becomes Inf. What stays of them is NaN or
    Inf.

    Args:
        acc: float32; with ``keep`` or ``gradients`` updated in place.
        code: uint16 or bfloat16 of as many elements, overwritten.
        gradients: float32 or bfloat16 tensors, as many elements in all as ``acc``, which are added to it
            first, one behind the other, in the same pass; None for none.
        keep: leave in ``acc`` what was not sent.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    tensors = {"acc": acc, "gradients": _row("gradients", gradients), "code": code}
    run("bf16_encode", tensors, threads=threads, keep=flag("keep", keep))


def bf16_add(code: Any, out: Any, weight: float = 1.0, *, threads: int | None = None) -> None:
    """Add what ``bf16_encode`` sent, times a weight.

    Args:
        code: uint16 or bfloat16, or a list of such codes, which are added in this order.
        out: float32 of as many elements, updated in place.
        weight: finite.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    run("bf16_add", {"code": code, "out": out}, threads=threads, weight=finite("weight", weight))


def bf16_write(code: Any, targets: Sequence[Any], *, threads: int | None = None) -> None:
    """Write what ``bf16_encode`` sent to tensors, one behind the other.

    Args:
        code: uint16 or bfloat16.
        targets: float32 or bfloat16, as many elements in all, overwritten.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    run("bf16_write", {"code": code, "targets": _row("targets", targets)}, threads=threads)


def blocks_sizes(count: int, *, bits: int = 8, block: int = 256) -> tuple[int, int]:
    """Bytes of codes and number of scales that ``blocks_encode`` needs for ``count`` elements."""
    count, block = whole("count", count), _block(block)
    return -(-count * _bits(bits) // 8), -(-count // block)


def blocks_encode(
    acc: Any,
    codes: Any,
    scales: Any,
    *,
    bits: int = 8,
    block: int = 256,
    seed: int | None = None,
    gradients: Sequence[Any] | None = None,
    keep: bool = False,
    threads: int | None = None,
) -> None:
    r"""Round to levels of 8, 4 or 2 bits, with a scale for each block from its largest magnitude m.

    8 bits have the levels -127..127 with the scale :math:`m / 127`, 4 bits -7..7 with
    :math:`m / 7`. 2 bits have -3, -1, 1 and 3 with :math:`m / 3`, so that 0 becomes m / 3 and needs
    ``keep``. Codes are two's complement, of 2 bits (level + 3) / 2; a byte's first code takes its
    low bits. Rounding is to nearest, or with a seed up or down so that the mean over seeds is the
    value itself (to :math:`2^{-24}` of a level): by a hash of seed, block and place in the block,
    and of nothing else.

    NaN or Inf anywhere in a block makes its scale NaN, and so all that is decoded from it and all
    that stays. Blocks without a magnitude of :math:`2^{-100}` have the scale 0.

    Args:
        acc: float32; with ``keep`` or ``gradients`` updated in place.
        codes: uint8 [ceil(count * bits / 8)], overwritten.
        scales: float32 [ceil(count / block)], overwritten.
        bits: 8, 4 or 2.
        block: elements that share a scale, a multiple of 8 up to 65536; the last one is what is left.
        seed: an integer in [0, 2^64), another one for each step and rank; None for nearest.
        gradients: float32 or bfloat16 tensors, as many elements in all as ``acc``, which are added to it
            first, one behind the other, in the same pass; None for none.
        keep: leave in ``acc`` what was not sent.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.

    Source: QSGD, 1610.02132 (stochastic rounding); blocks as in 8-bit optimisers, 2110.02861.
    """
    options = {
        "bits": _bits(bits),
        "block": _block(block),
        "stochastic": int(seed is not None),
        "seed": 0 if seed is None else seed_number(seed),
        "keep": flag("keep", keep),
    }
    row = _row("gradients", gradients)
    tensors = {"acc": acc, "gradients": row, "codes": codes, "scales": scales}
    run("blocks_encode", tensors, threads=threads, **options)


def blocks_add(
    codes: Any,
    scales: Any,
    out: Any,
    *,
    bits: int = 8,
    block: int = 256,
    weight: float = 1.0,
    threads: int | None = None,
) -> None:
    """Add what ``blocks_encode`` sent, times a weight.

    Args:
        codes, scales, bits, block: as in ``blocks_encode``; or lists of several codes and their scales,
            which are added in this order.
        out: float32, updated in place.
        weight: finite.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    options = {"bits": _bits(bits), "block": _block(block), "weight": finite("weight", weight)}
    run("blocks_add", {"codes": codes, "scales": scales, "out": out}, threads=threads, **options)


def blocks_write(
    codes: Any,
    scales: Any,
    targets: Sequence[Any],
    *,
    bits: int = 8,
    block: int = 256,
    threads: int | None = None,
) -> None:
    """Write what ``blocks_encode`` sent to tensors, one behind the other.

    Args:
        codes, scales, bits, block: as in ``blocks_encode``.
        targets: float32 or bfloat16, as many elements in all, overwritten.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    options = {"bits": _bits(bits), "block": _block(block)}
    tensors = {"codes": codes, "scales": scales, "targets": _row("targets", targets)}
    run("blocks_write", tensors, threads=threads, **options)


def signs_sizes(count: int, *, block: int = 256) -> tuple[int, int]:
    """Bytes of signs and number of scales that ``signs_encode`` needs for ``count`` elements."""
    count, block = whole("count", count), _block(block)
    return -(-count // 8), -(-count // block)


def signs_encode(
    acc: Any,
    bits: Any,
    scales: Any,
    *,
    block: int = 256,
    gradients: Sequence[Any] | None = None,
    keep: bool = False,
    threads: int | None = None,
) -> None:
    r"""Send the signs, and for each block the mean magnitude.

    No other scale leaves less: the mean of :math:`|a|` minimises :math:`\|a - s\,\mathrm{sign}(a)\|`.
    It is summed in float64 in a fixed order. 0 has its own sign bit.

    NaN or Inf anywhere in a block makes its scale NaN, and so all that is decoded from it and all
    that stays.

    Args:
        acc: float32; with ``keep`` or ``gradients`` updated in place.
        bits: uint8 [ceil(count / 8)], overwritten: 1 for what is negative, low bits first.
        scales: float32 [ceil(count / block)], overwritten.
        block: elements that share a scale, as in ``blocks_encode``.
        gradients: float32 or bfloat16 tensors, as many elements in all as ``acc``, which are added to it
            first, one behind the other, in the same pass; None for none.
        keep: leave in ``acc`` what was not sent.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.

    Source: EF-signSGD, 1901.09847; 1-bit Adam, 2102.02888.
    """
    options = {"block": _block(block), "keep": flag("keep", keep)}
    row = _row("gradients", gradients)
    tensors = {"acc": acc, "gradients": row, "bits": bits, "scales": scales}
    run("signs_encode", tensors, threads=threads, **options)


def signs_add(
    bits: Any,
    scales: Any,
    out: Any,
    *,
    block: int = 256,
    weight: float = 1.0,
    threads: int | None = None,
) -> None:
    """Add what ``signs_encode`` sent, times a weight.

    Args:
        bits, scales, block: as in ``signs_encode``; or lists of several codes and their scales, which
            are added in this order.
        out: float32, updated in place.
        weight: finite.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    options = {"block": _block(block), "weight": finite("weight", weight)}
    run("signs_add", {"bits": bits, "scales": scales, "out": out}, threads=threads, **options)


def signs_write(
    bits: Any,
    scales: Any,
    targets: Sequence[Any],
    *,
    block: int = 256,
    threads: int | None = None,
) -> None:
    """Write what ``signs_encode`` sent to tensors, one behind the other.

    Args:
        bits, scales, block: as in ``signs_encode``.
        targets: float32 or bfloat16, as many elements in all, overwritten.
        threads: number of threads, as in ``accumulate``.

    Raises:
        ValueError: an argument is not as above; nothing was changed.
    """
    tensors = {"bits": bits, "scales": scales, "targets": _row("targets", targets)}
    run("signs_write", tensors, threads=threads, block=_block(block))


def _row(name: str, tensors: Sequence[Any] | None) -> Any:
    """A list of tensors for ``run``, which would take a single one, too."""
    if tensors is None:
        return ABSENT
    if not isinstance(tensors, (list, tuple)):
        raise ValueError(f"{name} must be a list or tuple of tensors, not {type(tensors).__name__}")
    return tensors


def _bits(bits: int) -> int:
    if isinstance(bits, bool) or bits not in (8, 4, 2):
        raise ValueError(f"bits must be 8, 4 or 2, not {bits!r}")
    return int(bits)


def _block(block: int) -> int:
    if whole("block", block) % 8 or not 8 <= block <= 65536:
        raise ValueError(f"block must be a multiple of 8 from 8 to 65536, not {block!r}")
    return int(block)
