"""Models of ``oarlock.llm`` as native decoders: weights rounded, packed and put beside each other.

Parameters are taken one layer after another, so that memory holds the packed model and one layer of floats.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_dtypes import bfloat16
from numpy.typing import NDArray
from oarlock.native import decoder, quant
from oarlock.native.decoder import Layer, Linear, Norm

from oarlock.llm.loading.blocks import BlockArray
from oarlock.llm.models import bloom, glm, rope
from oarlock.llm.models.config import ModelConfig

FORMATS = ("fp32", "bf16", "int8", "int4")
#: Formats of embedding and head beside those of the layers: they are the most sensitive to four bits.
TABLES = {"fp32": "fp32", "bf16": "bf16", "int8": "int8", "int4": "int8"}
#: Positions of models without a limit of their own, as BLOOM was trained.
UNLIMITED = 2048
FAMILIES = ("bloom", "glm", "gpt", "llama", "moe")

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
    if weights not in FORMATS:
        raise ValueError(f"weights must be one of {', '.join(FORMATS)}, got {weights!r}.")
    if family not in FAMILIES:
        raise ValueError(
            f"family must be one of {', '.join(FAMILIES)}, got {family!r}: the engine runs transformers."
        )
    return _Packing(family, config, parameters, weights, max_length or UNLIMITED).model()


@dataclasses.dataclass(frozen=True, slots=True)
class _Packing:
    family: str
    config: Any
    parameters: Parameters
    weights: str
    unlimited: int  #: positions where the model has no limit

    def model(self) -> decoder.Model:
        config, family = self.config, self.family
        tied = family in ("gpt", "bloom") or getattr(config, "tie_embeddings", False)
        table = self.table("embedding.weight", transposed=True)
        plain = family in ("gpt", "bloom")
        heads = config.num_heads
        size = getattr(config, "head_size", config.hidden_size // heads)
        return decoder.Model(
            embedding=table,
            head=table if tied else self.table("head.weight"),
            layers=tuple(self.layer(f"blocks.{i}") for i in range(config.num_layers)),
            final_norm=self.norm("norm"),
            embedding_norm=self.norm("embedding_norm") if family == "bloom" else None,
            heads=heads,
            kv_heads=getattr(config, "num_kv_heads", heads),
            head_size=size,
            intermediate=config.intermediate_size,
            max_length=_max_length(config, self.unlimited),
            layer_norm=plain,
            activation="gelu_tanh" if plain else "swiglu",
            epsilon=config.norm_epsilon,
            slopes=np.array(bloom.alibi_slopes(heads), np.float32) if family == "bloom" else None,
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

    def layer(self, name: str) -> Layer:
        gate = self.family not in ("gpt", "bloom")
        common: dict[str, Any] = {
            "attention_norm": self.norm(f"{name}.attention_norm"),
            "feed_forward_norm": self.norm(f"{name}.feed_forward_norm"),
            "qkv": self.linear(*(f"{name}.attention.{part}" for part in ("query", "key", "value"))),
            "out": self.linear(f"{name}.attention.out"),
        }
        if self.family != "moe":
            up, down = self.feed_forward(f"{name}.feed_forward", gate)
            return Layer(**common, up=up, down=down)
        router = self.floats(f"{name}.feed_forward.router.linear.weight")
        return Layer(
            **common,
            router=quant.Matrix.pack(router, format="fp32"),
            experts=tuple(
                self.feed_forward(f"{name}.feed_forward.experts.{i}", gate)
                for i in range(self.config.num_experts)
            ),
        )

    def feed_forward(self, name: str, gate: bool) -> tuple[Linear, Linear]:
        ups = (f"{name}.gate", f"{name}.up") if gate else (f"{name}.up",)
        return self.linear(*ups), self.linear(f"{name}.down")

    def linear(self, *names: str) -> Linear:
        """One product for several layers over the same inputs."""
        given = [self.parameters[f"{name}.weight"] for name in names]
        biases = [f"{name}.bias" for name in names]
        bias = None
        if any(one in self.parameters for one in biases):
            bias = np.concatenate([self.floats(one) for one in biases])
        return Linear(weight=_matrix(given, self.weights), bias=bias)

    def norm(self, name: str) -> Norm:
        bias = f"{name}.bias"
        return Norm(
            weight=self.floats(f"{name}.weight"),
            bias=self.floats(bias) if bias in self.parameters else None,
        )

    def table(self, name: str, *, transposed: bool = False) -> quant.Matrix:
        """Embedding [V, D], which is transposed, or head [D, V]."""
        given = self.parameters[name]
        return _matrix([given.T if transposed else given], TABLES[self.weights])

    def floats(self, name: str) -> Floats:
        return _floats(self.parameters[name])


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


def _matrix(parts: list[Any], format: str) -> quant.Matrix:
    """Matrices [inputs, outputs] beside each other, packed.

    Codes that files have in the format asked for go in as they are.
    """
    coded = [_codes(part, format) for part in parts]
    if all(one is not None for one in coded):
        codes, scales = (np.concatenate(some) for some in zip(*coded))  # type: ignore[arg-type]
        return quant.Matrix.from_codes(codes, scales, format=format)
    arrays = [
        part.dequantize() if isinstance(part, BlockArray) else np.asarray(part) for part in parts
    ]
    # As they lie in memory: [outputs, inputs] where all are transposed views.
    lies = all(one.T.flags.c_contiguous and not one.flags.c_contiguous for one in arrays)
    if lies:
        joined = np.concatenate([one.T for one in arrays]) if len(arrays) > 1 else arrays[0].T
    else:
        joined = np.concatenate(arrays, axis=1) if len(arrays) > 1 else arrays[0]
    kind = bfloat16 if joined.dtype == bfloat16 else np.float32
    given = np.ascontiguousarray(joined, kind)
    return quant.Matrix.pack(given, format=format, transposed=lies)


#: How the codes of a file's rows [bytes of a row] are split, by format: (name of the file's, bytes of a block).
_CODES: dict[str, tuple[str, Callable[[NDArray[np.uint8]], NDArray[np.int8]]]] = {
    "int8": ("q8_0", lambda block: block.view(np.int8)),
    "int4": ("q4_0", lambda block: _nibbles(block)),
}


def _nibbles(block: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Codes 0 to 15 of the low halves, then those of the high ones, less 8."""
    both = np.concatenate([block & 15, block >> 4], axis=-1)
    return both.astype(np.int8) - np.int8(8)


def _codes(part: Any, format: str) -> tuple[NDArray[np.int8], Floats] | None:
    """Codes [outputs, inputs] and scales [outputs, inputs / 32], if the file has them in this format."""
    if not isinstance(part, BlockArray) or not part.transposed or format not in _CODES:
        return None
    name, split = _CODES[format]
    if part.format.name != name:
        return None
    blocks = np.ascontiguousarray(part.rows).reshape(len(part.rows), -1, part.format.num_bytes)
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)[..., 0].astype(np.float32)
    codes = split(np.ascontiguousarray(blocks[..., 2:]))
    if format == "int8" and (codes == -128).any():
        return None  # a code that the kernels do not have
    return codes.reshape(len(part.rows), -1), scales
