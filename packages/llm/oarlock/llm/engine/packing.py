"""Models of ``oarlock.llm`` as native decoders: weights rounded, packed and put beside each other.

Parameters are taken one layer after another, so that memory holds the packed model and one layer of floats. Of several
ranks each gets a part, cut before it is packed.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from ml_dtypes import bfloat16
from numpy.typing import NDArray
from oarlock.native import decoder, quant
from oarlock.native.decoder import Layer, Linear, Norm
from oarlock.native.quant import GROUP

from oarlock.llm.engine import sharding
from oarlock.llm.engine.sharding import Shard, Sizes
from oarlock.llm.loading.blocks import BlockArray
from oarlock.llm.models import bloom, glm, rope
from oarlock.llm.models.config import ModelConfig

FORMATS = ("fp32", "bf16", "int8", "int4")
#: Formats of embedding and head beside those of the layers: they are the most sensitive to four bits.
TABLES = {"fp32": "fp32", "bf16": "bf16", "int8": "int8", "int4": "int8"}
#: Positions of models without a limit of their own, as BLOOM was trained.
UNLIMITED = 2048
FAMILIES = ("bloom", "glm", "gpt", "llama", "moe")
#: Families with layer norms, without a gate, and with one table for both ends.
PLAIN = ("gpt", "bloom")

Floats = NDArray[np.float32]
Parameters = Mapping[str, Any]


def pack(
    family: str,
    config: ModelConfig,
    parameters: Parameters,
    *,
    weights: str = "fp32",
    max_length: int | None = None,
) -> decoder.Model:
    """The native decoder of a model.

    Args:
        family: of ``oarlock.llm.models``, but for rwkv4, which is no transformer.
        config: of the model.
        parameters: by the names of the model's ``state_dict``: arrays, ``BlockArray``, or what NumPy makes
            arrays of.
        weights: format of the matrices of layers; embedding and head are int8 beside int4.
        max_length: positions of a model that has no limit of its own (BLOOM); None for 2048.

    Raises:
        ValueError: the family or format is unknown, or a weight cannot be had in it.
    """
    packing = _packing(family, config, parameters, weights, max_length)
    return packing.model(sharding.whole(packing.sizes))


def parts(
    family: str,
    config: ModelConfig,
    parameters: Parameters,
    *,
    ranks: int,
    weights: str = "fp32",
    max_length: int | None = None,
) -> Iterator[tuple[Shard, decoder.Model]]:
    """The parts of several ranks and what each is, made one by one; that of the first comes last.

    Args:
        family, config, parameters, weights, max_length: as of ``pack``.
        ranks: how many.

    Raises:
        ValueError: as of ``pack``, or the model cannot be cut into so many parts; at once.
    """
    packing = _packing(family, config, parameters, weights, max_length)
    shards = sharding.shards(packing.sizes, ranks, grouped=weights in ("int8", "int4"))
    return ((shard, packing.model(shard)) for shard in reversed(shards))


def count(family: str, config: Any) -> int:
    """How many numbers the matrices of a model hold."""
    sizes, D, V = sharding.Sizes.of(config), config.hidden_size, config.vocab_size
    gate = 1 if family in PLAIN else 2
    experts = getattr(config, "num_experts", 0)
    attention = (sizes.heads * 2 + sizes.kv_heads * 2) * sizes.head_size * D
    feed_forward = (gate + 1) * sizes.intermediate * D * (experts or 1) + D * experts
    tables = D * V * (1 if _tied(family, config) else 2)
    return tables + config.num_layers * (attention + feed_forward)


def _packing(
    family: str, config: ModelConfig, parameters: Parameters, weights: str, length: int | None
) -> "_Packing":
    if weights not in FORMATS:
        raise ValueError(f"weights must be one of {', '.join(FORMATS)}, got {weights!r}.")
    if family not in FAMILIES:
        raise ValueError(
            f"family must be one of {', '.join(FAMILIES)}, got {family!r}: the engine runs transformers."
        )
    return _Packing(family, config, parameters, weights, length or UNLIMITED)


def _tied(family: str, config: Any) -> bool:
    return family in PLAIN or getattr(config, "tie_embeddings", False)


@dataclasses.dataclass(frozen=True, slots=True)
class _Packing:
    family: str
    config: Any
    parameters: Parameters
    weights: str
    unlimited: int  #: positions where the model has no limit
    tables: dict[str, quant.Matrix] = dataclasses.field(default_factory=dict)  #: that ranks share

    @property
    def sizes(self) -> Sizes:
        return Sizes.of(self.config)

    def model(self, shard: Shard) -> decoder.Model:
        config, family = self.config, self.family
        plain, heads = family in PLAIN, config.num_heads
        table = self.table("embedding.weight", transposed=True)
        slopes = None
        if family == "bloom":
            slopes = np.array(bloom.alibi_slopes(heads), np.float32)[shard.queries]
        return decoder.Model(
            embedding=table,
            head=self.head(table, shard.words),
            layers=tuple(
                _Block(self, shard, f"blocks.{i}").layer() for i in range(config.num_layers)
            ),
            final_norm=self.norm("norm"),
            embedding_norm=self.norm("embedding_norm") if family == "bloom" else None,
            heads=shard.queries.stop - shard.queries.start,
            kv_heads=shard.keys.stop - shard.keys.start,
            head_size=self.sizes.head_size,
            intermediate=shard.inner.stop - shard.inner.start,
            max_length=_max_length(config, self.unlimited),
            layer_norm=plain,
            activation="gelu_tanh" if plain else "swiglu",
            epsilon=config.norm_epsilon,
            slopes=slopes,
            positions=self.floats("position_embedding.weight") if family == "gpt" else None,
            window=getattr(config, "window", None),
            experts_per_token=getattr(config, "experts_per_token", 0),
            **self.rotations(),
        )

    def rotations(self) -> dict[str, Any]:
        """Tables of the angles at all positions."""
        config = self.config
        if self.family in ("gpt", "bloom"):
            return {}
        if self.family == "glm":
            tables = glm.half_rope_tables(config.max_length, config.head_size, config.rope_theta)
            turned = config.head_size // 4  # pairs; the second half of a head does not turn
            return {name: one.numpy()[:, :turned] for name, one in zip(("cos", "sin"), tables)}
        tables = rope.fixed_tables(config)
        return {name: one.numpy() for name, one in zip(("cos", "sin"), tables)}

    def head(self, table: quant.Matrix, words: slice) -> quant.Matrix | None:
        """Some columns of the head, which may be the embedding."""
        if words.start == words.stop:
            return None
        if _tied(self.family, self.config):
            return (
                table
                if words == slice(0, table.outputs)
                else table.columns(words.start, words.stop)
            )
        return _matrix([self.parameters["head.weight"]], TABLES[self.weights], outputs=[words])

    def norm(self, name: str) -> Norm:
        bias = f"{name}.bias"
        return Norm(
            weight=self.floats(f"{name}.weight"),
            bias=self.floats(bias) if bias in self.parameters else None,
        )

    def table(self, name: str, *, transposed: bool = False) -> quant.Matrix:
        """Embedding [V, D], which is transposed; all ranks have it whole."""
        if name not in self.tables:
            given = self.parameters[name]
            self.tables[name] = _matrix([given.T if transposed else given], TABLES[self.weights])
        return self.tables[name]

    def floats(self, name: str) -> Floats:
        return _floats(self.parameters[name])


@dataclasses.dataclass(frozen=True, slots=True)
class _Block:
    """One layer's part of a shard."""

    packing: _Packing
    shard: Shard
    name: str

    def layer(self) -> Layer:
        packing, name = self.packing, self.name
        gate = packing.family not in PLAIN
        K = packing.sizes.head_size
        q, k = (slice(one.start * K, one.stop * K) for one in (self.shard.queries, self.shard.keys))
        common: dict[str, Any] = {
            "attention_norm": packing.norm(f"{name}.attention_norm"),
            "feed_forward_norm": packing.norm(f"{name}.feed_forward_norm"),
            "qkv": self.columns(
                {
                    f"{name}.attention.{part}": q if part == "query" else k
                    for part in ("query", "key", "value")
                }
            ),
            "out": self.rows(f"{name}.attention.out", q),
        }
        if packing.family != "moe":
            up, down = self.feed_forward(f"{name}.feed_forward", gate)
            return Layer(**common, up=up, down=down)
        router = packing.floats(f"{name}.feed_forward.router.linear.weight")
        return Layer(
            **common,
            router=quant.Matrix.pack(router, format="fp32"),
            experts=tuple(
                self.feed_forward(f"{name}.feed_forward.experts.{i}", gate)
                for i in range(packing.config.num_experts)
            ),
        )

    def feed_forward(self, name: str, gate: bool) -> tuple[Linear, Linear]:
        ups = (f"{name}.gate", f"{name}.up") if gate else (f"{name}.up",)
        inner = self.shard.inner
        return self.columns({one: inner for one in ups}), self.rows(f"{name}.down", inner)

    def columns(self, outputs: Mapping[str, slice]) -> Linear:
        """One product for some outputs of several layers over the same inputs."""
        packing = self.packing
        given = [packing.parameters[f"{name}.weight"] for name in outputs]
        bias = None
        if any(f"{name}.bias" in packing.parameters for name in outputs):
            bias = np.concatenate([packing.floats(f"{n}.bias")[at] for n, at in outputs.items()])
        weight = _matrix(given, packing.weights, outputs=list(outputs.values()))
        return Linear(weight=weight, bias=bias)

    def rows(self, name: str, inputs: slice) -> Linear:
        """A product with some inputs of a layer; the first rank has its bias."""
        packing = self.packing
        bias = None
        if f"{name}.bias" in packing.parameters and self.shard.rank == 0:
            bias = packing.floats(f"{name}.bias")
        weight = _matrix([packing.parameters[f"{name}.weight"]], packing.weights, inputs=inputs)
        return Linear(weight=weight, bias=bias)


def _max_length(config: Any, unlimited: int) -> int:
    """Positions; with dynamic scaling those whose angles do not depend on the length."""
    if not hasattr(config, "max_length"):
        return unlimited
    scaling = getattr(config, "rope_scaling", None)
    if scaling is not None and scaling.kind == "dynamic":
        return min(config.max_length, scaling.original_length)
    return config.max_length


def _floats(values: Any) -> Floats:
    if isinstance(values, BlockArray):
        return values.dequantize()
    return np.ascontiguousarray(np.asarray(values), np.float32)


ALL = slice(None)


def _matrix(
    parts: list[Any], format: str, *, inputs: slice = ALL, outputs: list[slice] | None = None
) -> quant.Matrix:
    """Matrices [inputs, outputs] beside each other, packed; of each some inputs and outputs.

    Codes that the format holds exactly go in as they are.
    """
    columns = [ALL] * len(parts) if outputs is None else outputs
    parts = [
        (
            one.take(at)
            if isinstance(one, BlockArray) and one.transposed
            else np.asarray(_plain(one))[:, at]
        )
        for one, at in zip(parts, columns)
    ]
    coded = [_codes(part, format, inputs) for part in parts]
    if all(one is None for one in coded):
        return _pack([np.asarray(_plain(part))[inputs] for part in parts], format)
    given = [
        one if one is not None else _pack([np.asarray(_plain(part))[inputs]], format).codes()
        for one, part in zip(coded, parts)
    ]
    codes, scales = (np.concatenate(some) for some in zip(*given))
    return quant.Matrix.from_codes(codes, scales, format=format)


def _pack(arrays: list[NDArray[Any]], format: str) -> quant.Matrix:
    # As they lie in memory: [outputs, inputs] where all are views of transposed ones.
    lies = all(one.strides[0] < one.strides[1] for one in arrays)
    if lies:
        joined = np.concatenate([one.T for one in arrays]) if len(arrays) > 1 else arrays[0].T
    else:
        joined = np.concatenate(arrays, axis=1) if len(arrays) > 1 else arrays[0]
    kind = bfloat16 if joined.dtype == bfloat16 else np.float32
    given = np.ascontiguousarray(joined, kind)
    return quant.Matrix.pack(given, format=format, transposed=lies)


def _plain(part: Any) -> Any:
    return part.dequantize() if isinstance(part, BlockArray) else part


#: How the codes of a file's blocks are split, by the file's format and those of the engine that hold them exactly.
_CODES: dict[str, tuple[tuple[str, ...], Callable[[NDArray[np.uint8]], NDArray[np.int8]]]] = {
    "q8_0": (("int8",), lambda block: block.view(np.int8)),
    "q4_0": (("int4", "int8"), lambda block: _nibbles(block)),
}


def _nibbles(block: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Codes 0 to 15 of the low halves, then those of the high ones, less 8."""
    both = np.concatenate([block & 15, block >> 4], axis=-1)
    return both.astype(np.int8) - np.int8(8)


def keeps(values: Any, format: str) -> bool:
    """Whether a matrix of a file goes in with the codes that it has there."""
    if not isinstance(values, BlockArray):
        return False
    return _codes(values if values.transposed else values.T, format) is not None


def _codes(part: Any, format: str, inputs: slice = ALL) -> tuple[NDArray[np.int8], Floats] | None:
    """Codes [outputs, inputs] and scales [outputs, inputs / 32], if the file has such that are exact in this format.

    Inputs are cut between groups of 32.
    """
    if not isinstance(part, BlockArray) or not part.transposed:
        return None
    formats, split = _CODES.get(part.format.name, ((), _nibbles))
    if format not in formats:
        return None
    blocks = np.ascontiguousarray(part.rows).reshape(len(part.rows), -1, part.format.num_bytes)
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0].astype(np.float32)
    codes = split(np.ascontiguousarray(blocks[..., 2:]))
    codes = codes.reshape(len(part.rows), -1)
    begin, end, _ = inputs.indices(codes.shape[1])
    return codes[:, begin:end], scales[:, begin // GROUP : -(-end // GROUP)]
