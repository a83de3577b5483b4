"""Low-rank changes of a decoder's products (LoRA), for some sequences of a batch.

A product ``y = x W`` becomes ``x W + (x A) B`` with A [inputs, r] and B [r, outputs]; r is small. ``Decoder.load_adapter``
takes an ``Adapter`` in and gives its number, which ``Rows`` of a sequence name. Sequences of different adapters, and
without one, may stand in one batch; it is fastest where those of an adapter stand beside each other.

>>> change = LowRank.pack([(a, b, first)])  # a [D, r], b [r, n] times the scale, for columns first to first + n - 1
>>> number = decoder.load_adapter(Adapter(layers=(AdapterLayer(qkv=change), AdapterLayer())))
>>> decoder.forward(cache, [Rows([5, 9], 0, [0], adapter=number), Rows([5, 9], 0, [1])], wanted=[1, 3])

Source: Hu et al., LoRA, 2106.09685; batches of several adapters: Sheng et al., S-LoRA, 2311.03285.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from oarlock.native import _decoder_abi as abi
from oarlock.native import quant

Floats = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Columns ``first`` on of a product gain (x a[:, rank on]) b.

    Args:
        b: [r, n], float32 or bfloat16, the scale in it.
        rank: first column of ``a``.
        first: first column of the product.
    """

    b: quant.Matrix
    rank: int
    first: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowRank:
    """Change of one product of a layer.

    Args:
        a: [inputs, R], float32 or bfloat16: those of all parts beside each other.
        parts: what each adds; one for a plain product, several where layers are fused (queries, keys, values).
    """

    a: quant.Matrix
    parts: tuple[Part, ...]

    @classmethod
    def pack(cls, parts: Iterable[tuple[Floats, Floats, int]], *, format: str = "fp32") -> Self:
        """Of (a [inputs, r], b [r, n] times the scale, first column) each."""
        given, packed, rank = list(parts), [], 0
        for a, b, first in given:
            if np.ndim(a) != 2 or np.ndim(b) != 2 or np.shape(a)[1] != np.shape(b)[0]:
                raise ValueError(
                    f"a [inputs, r] and b [r, n] must fit, not {np.shape(a)} and {np.shape(b)}"
                )
            matrix = quant.Matrix.pack(np.ascontiguousarray(b, np.float32), format=format)
            packed.append(Part(b=matrix, rank=rank, first=first))
            rank += a.shape[1]
        joined = np.concatenate([a for a, _, _ in given], axis=1)
        whole = quant.Matrix.pack(np.ascontiguousarray(joined, np.float32), format=format)
        return cls(a=whole, parts=tuple(packed))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdapterLayer:
    """Changes of a layer's products, as ``decoder.Layer`` has them; None for none.

    Args:
        qkv, out, up, down: of the products of these names.
        experts: (up, down) of each expert; empty for none.
    """

    qkv: LowRank | None = None
    out: LowRank | None = None
    up: LowRank | None = None
    down: LowRank | None = None
    experts: tuple[tuple[LowRank | None, LowRank | None], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapter:
    """Changes of all layers of a decoder."""

    layers: tuple[AdapterLayer, ...]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        found = 0
        for layer in self.layers:
            changes = [layer.qkv, layer.out, layer.up, layer.down]
            changes += [one for pair in layer.experts for one in pair]
            for change in changes:
                if change is not None:
                    found += change.a.nbytes + sum(part.b.nbytes for part in change.parts)
        return found


def argument(adapter: Adapter, layers: int, experts: int, kept: list[Any]) -> abi.Adapter:
    """The structure of the C ABI; ``kept`` gets all that it points to."""
    if len(adapter.layers) != layers:
        raise ValueError(f"adapter must have {layers} layers, not {len(adapter.layers)}")
    found = (abi.AdapterLayer * layers)()
    for one, layer in zip(found, adapter.layers):
        if layer.experts and len(layer.experts) != experts:
            raise ValueError(
                f"a layer of adapter must have {experts} experts, not {len(layer.experts)}"
            )
        for name in ("qkv", "out", "up", "down"):
            setattr(one, name, _low_rank(getattr(layer, name), kept))
        if layer.experts:
            changes = [_low_rank(change, kept) for pair in layer.experts for change in pair]
            one.experts = (abi.LowRank * len(changes))(*changes)
            kept.append(one.experts)
    kept += [found, adapter]
    return abi.Adapter(found)


def _low_rank(given: LowRank | None, kept: list[Any]) -> abi.LowRank:
    if given is None:
        return abi.LowRank()
    parts = [abi.LowRankPart(abi.matrix(part.b), part.rank, part.first) for part in given.parts]
    array = (abi.LowRankPart * len(parts))(*parts)
    kept.append(array)
    return abi.LowRank(abi.matrix(given.a), array, len(parts))
