"""How a model is cut for several ranks: whole heads, parts of the feed-forward width, parts of the vocabulary.

Queries, keys, values, gate and up are cut by their outputs, ``out`` and ``down`` by their inputs, so that a layer needs
two sums over ranks. Integer weights are cut between groups of 32 inputs only: their codes are those of one rank, and so
is what rows are rounded to.

Source: Shoeybi et al., Megatron-LM, 1909.08053.
"""

import dataclasses
import math
from typing import Any

from oarlock.native.quant import GROUP, WIDTH


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """What one rank has of a model.

    Args:
        rank: which one; the first adds the biases of ``out`` and ``down``.
        ranks: how many there are.
        queries, keys: heads of queries, and of keys and values.
        inner: of the feed-forward width.
        words: of the head's outputs; may be none.
    """

    rank: int
    ranks: int
    queries: slice
    keys: slice
    inner: slice
    words: slice


def whole(sizes: "Sizes") -> Shard:
    """Everything, for one process."""
    return shards(sizes, 1, grouped=False)[0]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of a model: H and G heads of queries and of keys, K numbers each, F inner, V words."""

    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocab: int

    @classmethod
    def of(cls, config: Any) -> "Sizes":
        """Of a configuration of ``oarlock.llm.models``."""
        heads = config.num_heads
        return cls(
            heads=heads,
            kv_heads=getattr(config, "num_kv_heads", heads),
            head_size=getattr(config, "head_size", config.hidden_size // heads),
            intermediate=config.intermediate_size,
            vocab=config.vocab_size,
        )


def shards(sizes: Sizes, ranks: int, *, grouped: bool) -> list[Shard]:
    """The parts of all ranks, as even as may be.

    Args:
        sizes: of the model.
        ranks: n, how many. Where there are fewer heads of keys, n is a multiple of them, and each is at several ranks.
        grouped: weights are integers in groups of 32 inputs.

    Raises:
        ValueError: the model cannot be cut into so many parts.
    """
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise ValueError(f"ranks must be a positive integer, got {ranks!r}.")
    queries, keys = _heads(sizes, ranks, grouped)
    inner = cuts(sizes.intermediate, ranks, GROUP if grouped else 1)
    if any(one.start == one.stop for one in inner):
        raise _too_many(ranks, f"a feed-forward width of {sizes.intermediate}", grouped)
    words = cuts(sizes.vocab, ranks, WIDTH)
    return [
        Shard(rank=rank, ranks=ranks, queries=q, keys=k, inner=f, words=v)
        for rank, (q, k, f, v) in enumerate(zip(queries, keys, inner, words))
    ]


def _heads(sizes: Sizes, ranks: int, grouped: bool) -> tuple[list[slice], list[slice]]:
    """Heads of queries and of keys of each rank."""
    H, G, K = sizes.heads, sizes.kv_heads, sizes.head_size
    group = H // G
    if G >= ranks:
        keys = cuts(G, ranks, _unit(group * K, grouped))
        queries = [slice(one.start * group, one.stop * group) for one in keys]
    else:
        if ranks % G:
            raise ValueError(
                f"ranks must be at most {G}, the model's heads of keys, or a multiple of them, got {ranks}."
            )
        among = ranks // G
        parts = cuts(group, among, _unit(K, grouped))
        keys = [slice(g, g + 1) for g in range(G) for _ in parts]
        queries = [
            slice(g * group + one.start, g * group + one.stop) for g in range(G) for one in parts
        ]
    if any(one.start == one.stop for one in queries):
        raise _too_many(ranks, f"{H} heads of {K} numbers, {G} of keys", grouped)
    return queries, keys


def _unit(inputs: int, grouped: bool) -> int:
    """How many parts of so many inputs make whole groups."""
    return GROUP // math.gcd(GROUP, inputs) if grouped else 1


def cuts(total: int, parts: int, unit: int) -> list[slice]:
    """``total`` in so many parts that begin at multiples of ``unit``; some may be empty."""
    units = -(-total // unit)
    ends = [min(total, units * part // parts * unit) for part in range(parts + 1)]
    return [slice(begin, end) for begin, end in zip(ends, ends[1:])]


def _too_many(ranks: int, what: str, grouped: bool) -> ValueError:
    remedy = " or weights of fp32 or bf16" if grouped else ""
    between = f" between groups of {GROUP} inputs" if grouped else ""
    return ValueError(
        f"ranks must be fewer than {ranks}: {what} cannot be cut into as many parts{between}; use fewer ranks{remedy}."
    )
