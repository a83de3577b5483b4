"""How a model's parameters lie in the files of others, where the files agree but for names.

Shapes: D hidden_size, F intermediate_size, H num_heads, G num_kv_heads, K head_size, V vocab_size.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.loading.stored import Part
from oarlock.llm.models.bloom import BloomConfig
from oarlock.llm.models.glm import GLMConfig
from oarlock.llm.models.gpt import GPTConfig
from oarlock.llm.models.llama import LlamaConfig
from oarlock.llm.models.moe import MoEConfig

Parts = dict[str, Part]
Rows = slice | NDArray[np.intp] | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a format calls the parts of a model.

    Args:
        top: its name of each part outside the blocks, without ".weight" or ".bias".
        block: what its names of block {i} begin with.
        parts: its name of each part of a block.
    """

    top: Mapping[str, str]
    block: str
    parts: Mapping[str, str]

    def of(self, part: str, i: int | None = None) -> str:
        """Its name of a part, of block i."""
        return self.top[part] if i is None else self.block.format(i=i) + self.parts[part]


def matrix(name: str, rows: int, columns: int, *, at: Rows = None, of: int | None = None) -> Part:
    """A product's weight, stored [out, in]; ``at`` says which rows of ``of``."""
    return Part(name=f"{name}.weight", shape=(of or rows, columns), rows=at, transposed=True)


def vector(name: str, size: int, *, kind: str = "weight", at: Rows = None, of: int | None = None):
    """A norm's gain or a bias."""
    return Part(name=f"{name}.{kind}", shape=(of or size,), rows=at)


def table(name: str, rows: int, columns: int) -> Part:
    """An embedding, [rows, columns] in the file and here."""
    return Part(name=f"{name}.weight", shape=(rows, columns))


def pairs_from_halves(num_heads: int, head_size: int) -> NDArray[np.intp]:
    """Order of rows that makes adjacent pairs of a head's first and second half.

    Files whose rotary positions turn row i of a head with row i + K/2 (Hugging Face's LLaMA) give the
    same scores as ours, which turn 2i with 2i + 1, when queries and keys are reordered alike.
    """
    within = np.arange(head_size).reshape(2, -1).T.ravel()
    return (np.arange(num_heads)[:, None] * head_size + within).ravel()


def norm(parts: Parts, ours: str, theirs: str, size: int, *, bias: bool = False) -> None:
    """Gain and bias of a norm."""
    parts[f"{ours}.weight"] = vector(theirs, size)
    if bias:
        parts[f"{ours}.bias"] = vector(theirs, size, kind="bias")


def linear(
    parts: Parts,
    ours: str,
    theirs: str,
    shape: tuple[int, int],
    *,
    bias: bool = False,
    at: Rows = None,
    of: int | None = None,
) -> None:
    """Weight [out, in] and bias of a product; ``at`` says which rows of ``of``."""
    parts[f"{ours}.weight"] = matrix(theirs, *shape, at=at, of=of)
    if bias:
        parts[f"{ours}.bias"] = vector(theirs, shape[0], kind="bias", at=at, of=of)


def llama(config: LlamaConfig, names: Names, *, adjacent: bool, experts: str = "") -> Parts:
    """LLaMA, Qwen2, Mistral; with experts Mixtral.

    Args:
        config: of the model.
        names: of the format.
        adjacent: whether the file turns adjacent pairs, as we do; otherwise a head's halves.
        experts: "apart" or "stacked", one tensor for all, where there are any.
    """
    c = config
    D, K = c.hidden_size, c.head_size
    parts: Parts = {"embedding.weight": table(names.of("embedding"), c.vocab_size, D)}
    for i in range(c.num_layers):
        ours = f"blocks.{i}."
        for part in ("attention_norm", "feed_forward_norm"):
            norm(parts, ours + part, names.of(part, i), D)
        for part, heads in (("query", c.num_heads), ("key", c.num_kv_heads)):
            order = None if adjacent else pairs_from_halves(heads, K)
            shape = (heads * K, D)
            linear(parts, f"{ours}attention.{part}", names.of(part, i), shape, bias=c.qkv_bias, at=order)  # fmt: skip
        shape = (c.num_kv_heads * K, D)
        linear(parts, f"{ours}attention.value", names.of("value", i), shape, bias=c.qkv_bias)
        linear(parts, f"{ours}attention.out", names.of("out", i), (D, c.num_heads * K))
        if isinstance(c, MoEConfig):
            _experts(parts, c, names, i, stacked=experts == "stacked")
        else:
            _feed_forward(parts, f"{ours}feed_forward.", names, i, D, c.intermediate_size)
    norm(parts, "norm", names.of("norm"), D)
    if not c.tie_embeddings:
        linear(parts, "head", names.of("head"), (c.vocab_size, D))
    return parts


def _feed_forward(parts: Parts, ours: str, names: Names, i: int, D: int, F: int) -> None:
    for part, shape in (("gate", (F, D)), ("up", (F, D)), ("down", (D, F))):
        linear(parts, ours + part, names.of(part, i), shape)


def _experts(parts: Parts, c: MoEConfig, names: Names, i: int, *, stacked: bool) -> None:
    D, F, E = c.hidden_size, c.intermediate_size, c.num_experts
    ours = f"blocks.{i}.feed_forward."
    linear(parts, f"{ours}router.linear", names.of("router", i), (E, D))
    for e in range(E):
        for part, (rows, columns) in (("gate", (F, D)), ("up", (F, D)), ("down", (D, F))):
            name = f"{names.of(part, i).format(e=e)}.weight"
            shape = (E, rows, columns) if stacked else (rows, columns)
            at = slice(e * rows, (e + 1) * rows) if stacked else None
            parts[f"{ours}experts.{e}.{part}.weight"] = Part(
                name=name, shape=shape, rows=at, transposed=True
            )


def glm(config: GLMConfig, names: Names, *, tied: bool, qkv_bias: bool) -> Parts:
    """ChatGLM and GLM: queries, keys and values apart or joined, gate and up joined.

    A file without biases gets zeros, one whose head is the embedding gets a head like it.
    """
    c = config
    D, F, K = c.hidden_size, c.intermediate_size, c.head_size
    joined = "qkv" in names.parts
    sizes = {"query": c.num_heads * K, "key": c.num_kv_heads * K, "value": c.num_kv_heads * K}
    parts: Parts = {"embedding.weight": table(names.of("embedding"), c.vocab_size, D)}
    for i in range(c.num_layers):
        ours, start = f"blocks.{i}.", 0
        for part in ("attention_norm", "feed_forward_norm"):
            norm(parts, ours + part, names.of(part, i), D)
        for part, size in sizes.items():
            at, of = (slice(start, start + size), sum(sizes.values())) if joined else (None, None)
            theirs = names.of("qkv" if joined else part, i)
            linear(parts, f"{ours}attention.{part}", theirs, (size, D), bias=qkv_bias, at=at, of=of)
            if not qkv_bias:
                parts[f"{ours}attention.{part}.bias"] = Part(name=None, shape=(size,))
            start += size
        linear(parts, f"{ours}attention.out", names.of("out", i), (D, c.num_heads * K))
        theirs = names.of("gate_up", i)
        linear(parts, f"{ours}feed_forward.gate", theirs, (F, D), at=slice(0, F), of=2 * F)
        linear(parts, f"{ours}feed_forward.up", theirs, (F, D), at=slice(F, 2 * F), of=2 * F)
        linear(parts, f"{ours}feed_forward.down", names.of("down", i), (D, F))
    norm(parts, "norm", names.of("norm"), D)
    linear(parts, "head", names.of("embedding" if tied else "head"), (c.vocab_size, D))
    return parts


def gpt(config: GPTConfig, names: Names, *, transposed: bool) -> Parts:
    """GPT-2: queries, keys and values joined; Hugging Face's products are stored as ours."""
    c = config
    D, F = c.hidden_size, c.intermediate_size
    parts: Parts = {
        "embedding.weight": table(names.of("embedding"), c.vocab_size, D),
        "position_embedding.weight": table(names.of("positions"), c.max_length, D),
    }
    for i in range(c.num_layers):
        ours = f"blocks.{i}."
        for part in ("attention_norm", "feed_forward_norm"):
            norm(parts, ours + part, names.of(part, i), D, bias=True)
        for part, into, size in (
            *((f"attention.{part}", D, 3 * D) for part in ("query", "key", "value")),
            ("attention.out", D, D),
            ("feed_forward.up", F, F),
            ("feed_forward.down", D, D),
        ):
            last = part.split(".")[1]
            joined = last in ("query", "key", "value")
            theirs = names.of("qkv" if joined else last, i)
            columns = F if last == "down" else D
            start = D * ("query", "key", "value").index(last) if joined else 0
            at = slice(start, start + into) if joined else None
            if transposed:
                linear(parts, ours + part, theirs, (into, columns), bias=True, at=at, of=size)
            else:
                parts[f"{ours}{part}.weight"] = Part(
                    name=f"{theirs}.weight", shape=(columns, size), columns=at
                )
                parts[f"{ours}{part}.bias"] = vector(theirs, into, kind="bias", at=at, of=size)
    norm(parts, "norm", names.of("norm"), D, bias=True)
    return parts


def bloom(config: BloomConfig, names: Names, *, by_head: bool) -> Parts:
    """BLOOM: queries, keys and values joined, all three head by head or one after another."""
    c = config
    D, F, H = c.hidden_size, c.intermediate_size, c.num_heads
    K = D // H
    parts: Parts = {"embedding.weight": table(names.of("embedding"), c.vocab_size, D)}
    norm(parts, "embedding_norm", names.of("embedding_norm"), D, bias=True)
    for i in range(c.num_layers):
        ours = f"blocks.{i}."
        for part in ("attention_norm", "feed_forward_norm"):
            norm(parts, ours + part, names.of(part, i), D, bias=True)
        for number, part in enumerate(("query", "key", "value")):
            rows = np.arange(3 * D).reshape((H, 3, K) if by_head else (1, 3, D))[:, number].ravel()
            linear(parts, f"{ours}attention.{part}", names.of("qkv", i), (D, D), bias=True, at=rows, of=3 * D)  # fmt: skip
        linear(parts, f"{ours}attention.out", names.of("out", i), (D, D), bias=True)
        linear(parts, f"{ours}feed_forward.up", names.of("up", i), (F, D), bias=True)
        linear(parts, f"{ours}feed_forward.down", names.of("down", i), (D, F), bias=True)
    norm(parts, "norm", names.of("norm"), D, bias=True)
    return parts
