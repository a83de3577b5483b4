"""Folders of AWQ in its layout "gemm": ``qweight``, ``qzeros`` and ``scales`` in place of a product's weight.

Outputs lie eight to a word of ``qweight`` [I, O / 8] and of ``qzeros`` [G, O / 8], in the order 0 2 4 6 1 3 5 7; scales
are [G, O].

Source: Lin et al., arXiv 2306.00978; github.com/casper-hansen/AutoAWQ, ``awq/utils/packing_utils.py``.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.loading.fields import Fields
from oarlock.llm.loading.rounded import Rounded, array, check, misfit, unpacked
from oarlock.llm.loading.stored import Stored, Values

_PARTS = ("qweight", "qzeros", "scales")
_PLACES = np.argsort([0, 2, 4, 6, 1, 3, 5, 7])  # of outputs in a word


def decoded(settings: Fields, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors, each product's weight [O, I] in place of its parts.

    Raises:
        ValueError: a setting is none of those read here, or parts of a product are missing or misshapen.
    """
    for name in ("bits", "w_bit"):
        settings.must_be(name, 4, why="other codes are not read")
    version = settings.text("version", default="gemm").lower()
    if version != "gemm":
        raise ValueError(f"{settings.source}: version must be 'gemm', got {version!r}.")
    found: dict[str, Stored] = {}
    for name, tensor in stored.items():
        module, _, last = name.rpartition(".")
        if last == "qweight":
            weight = _weight(module, stored)
            found[weight.name] = weight
        elif last not in _PARTS or f"{module}.qweight" not in stored:
            found[name] = tensor
    return found


def _weight(module: str, stored: Mapping[str, Stored]) -> Stored:
    missing = [part for part in _PARTS if f"{module}.{part}" not in stored]
    if missing:
        raise ValueError(f"{module} has qweight but no {' and '.join(missing)}.")
    codes, zeros, scales = parts = [stored[f"{module}.{part}"] for part in _PARTS]
    for one, kind in zip(parts, ("int32", "int32", "float")):
        check(one, kind, 2)
    (num_in, words), G = codes.shape, scales.shape[0]
    num_out = 8 * words
    if (
        zeros.shape != (G, words)
        or scales.shape != (G, num_out)
        or not 0 < G <= num_in
        or num_in % G
    ):
        raise misfit(module, {one.name.rpartition(".")[2]: one.shape for one in parts})

    def read() -> Values:
        return Rounded(
            codes=np.ascontiguousarray(_in_order(array(codes, "int32", 2)).T),
            scales=np.ascontiguousarray(array(scales, "float", 2).T, np.float32),
            zeros=np.ascontiguousarray(_in_order(array(zeros, "int32", 2)).T, np.int16),
        ).values()

    return Stored(
        name=f"{module}.weight",
        shape=(num_out, num_in),
        format="awq of 4 bits",
        num_bytes=sum(one.num_bytes for one in parts),
        read=read,
    )


def _in_order(words: NDArray[np.int32]) -> NDArray[np.uint8]:
    """[n, O / 8] to the outputs' numbers [n, O]."""
    return unpacked(words, 4)[..., _PLACES].reshape(len(words), -1)
