"""The codes that send a tensor and add it up again, each behind the same two functions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oarlock.native import codec
from oarlock.native.reference import codec as reference

FLOAT32 = np.float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Kernels and oracle of a code, and its options.

    Attributes:
        encode: kernel that takes acc, the arrays of the code, and the options.
        add: kernel that takes the arrays, out, and the options.
        empty: arrays for a number of elements.
        oracle: acc to the arrays and what stays.
        decode: arrays and number of elements to the decoded tensor.
        sees: whether all elements are looked at.
    """

    encode: Callable[..., Any]
    add: Callable[..., Any]
    empty: Callable[[int], list[np.ndarray]]
    oracle: Callable[[np.ndarray], tuple[np.ndarray, ...]]
    decode: Callable[..., np.ndarray]
    options: dict[str, Any] = field(default_factory=dict)
    encode_options: dict[str, Any] = field(default_factory=dict)
    sees: bool = True

    def run(self, acc: np.ndarray, *, keep: bool = True, threads: int = 1):
        """The code, and what is in ``acc`` then, which is not changed."""
        acc, arrays = acc.copy(), self.empty(acc.size)
        options = self.options | self.encode_options
        self.encode(acc, *arrays, keep=keep, threads=threads, **options)
        return arrays, acc

    def decoded(self, arrays, count: int, *, threads: int = 1) -> np.ndarray:
        out = np.zeros(count, FLOAT32)
        self.add(*arrays, out, threads=threads, **self.options)
        return out


def filled(count: int, dtype: Any) -> np.ndarray:
    """Memory in which nothing is 0."""
    return np.full(count, 77, dtype)


def bf16() -> Code:
    return Code(
        encode=codec.bf16_encode,
        add=codec.bf16_add,
        empty=lambda n: [filled(n, np.uint16)],
        oracle=reference.bf16_encode,
        decode=lambda code, n: reference.bf16_decode(code),
    )


def blocks(bits: int, block: int, seed: int | None = None) -> Code:
    options = {"bits": bits, "block": block}

    def empty(n: int) -> list[np.ndarray]:
        codes, scales = codec.blocks_sizes(n, **options)
        return [filled(codes, np.uint8), filled(scales, FLOAT32)]

    return Code(
        encode=codec.blocks_encode,
        add=codec.blocks_add,
        empty=empty,
        oracle=lambda acc: reference.blocks_encode(acc, seed=seed, **options),
        decode=lambda *code: reference.blocks_decode(*code, **options),
        options=options,
        encode_options={"seed": seed},
    )


def signs(block: int) -> Code:
    def empty(n: int) -> list[np.ndarray]:
        bits, scales = codec.signs_sizes(n, block=block)
        return [filled(bits, np.uint8), filled(scales, FLOAT32)]

    return Code(
        encode=codec.signs_encode,
        add=codec.signs_add,
        empty=empty,
        oracle=lambda acc: reference.signs_encode(acc, block=block),
        decode=lambda *code: reference.signs_decode(*code, block=block),
        options={"block": block},
    )


def chunk_topk(chunk: int, k: int) -> Code:
    options = {"chunk": chunk, "k": k}

    def empty(n: int) -> list[np.ndarray]:
        entries = codec.chunk_topk_size(n, **options)
        return [filled(entries, np.uint16), filled(entries, FLOAT32)]

    return Code(
        encode=codec.chunk_topk_encode,
        add=codec.chunk_topk_add,
        empty=empty,
        oracle=lambda acc: reference.chunk_topk_encode(acc, **options),
        decode=lambda *code: reference.chunk_topk_decode(*code, **options),
        options=options,
    )


def topk(share: float) -> Code:
    """The largest of a tensor: ``kth_magnitude``, then ``select``."""

    def number(n: int) -> int:
        return min(n, 1 + int(share * n))

    def encode(acc: np.ndarray, indices: np.ndarray, values: np.ndarray, **options: Any) -> None:
        k = indices.size
        least = codec.kth_magnitude(acc, k, threads=options["threads"]) if k else np.inf
        assert codec.select(acc, least, indices, values, most=k, **options) == k

    def oracle(acc: np.ndarray) -> tuple[np.ndarray, ...]:
        k = number(acc.size)
        return reference.select(acc, reference.kth_magnitude(acc, k) if k else np.inf, k)

    def decode(indices: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
        return reference.chunk_topk_decode(indices, values, n, chunk=max(n, 1), k=max(n, 1))

    return Code(
        encode=encode,
        add=codec.select_add,
        empty=lambda n: [filled(number(n), np.uint32), filled(number(n), FLOAT32)],
        oracle=oracle,
        decode=decode,
    )


def random_k(share: float, scale: float = 1.0) -> Code:
    return Code(
        encode=codec.random_k,
        add=codec.random_k_add,
        empty=lambda n: [filled(int(share * n), FLOAT32)],
        oracle=lambda acc: reference.random_k(acc, int(share * acc.size), seed=9, scale=scale),
        decode=lambda values, n: reference.random_k_decode(values, n, seed=9),
        options={"seed": 9},
        encode_options={"scale": scale},
        sees=False,
    )


CODES = {
    "bf16": bf16(),
    "8 bits": blocks(8, 256),
    "8 bits, small blocks": blocks(8, 24),
    "8 bits at random": blocks(8, 64, 5),
    "4 bits": blocks(4, 64),
    "4 bits, large blocks": blocks(4, 4104),
    "4 bits at random": blocks(4, 8, 2**63),
    "2 bits": blocks(2, 128),
    "2 bits at random": blocks(2, 40, 7),
    "signs": signs(256),
    "signs, small blocks": signs(8),
    "signs, large blocks": signs(10008),
    "few of chunks": chunk_topk(4096, 32),
    "one of chunks": chunk_topk(64, 1),
    "half of chunks": chunk_topk(1000, 500),
    "all of chunks": chunk_topk(100, 100),
    "few of large chunks": chunk_topk(65536, 200),
    "many of large chunks": chunk_topk(65536, 9000),
    "few": topk(0.01),
    "half": topk(0.5),
    "random": random_k(0.05),
    "random, scaled": random_k(0.3, 1 / 0.3),
}
