"""A LLaMA as exporters see it: sizes, and matrices by the part they play.

Parts are named ``embedding`` [vocabulary, width], ``blocks.<i>.attention_norm`` [width],
``blocks.<i>.query``, ``.key``, ``.value``, ``.out`` [in, out], ``blocks.<i>.feed_forward_norm``,
``blocks.<i>.gate``, ``.up``, ``.down`` [in, out], ``norm``, and ``head`` [width, vocabulary] unless the
embedding is the head too.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from paddle import nn

from ... import _checks
from .codes import Codes, Matrix, of_layer, values_of

ATTENTION = ("query", "key", "value", "out")
FEED_FORWARD = ("gate", "up", "down")
NORMS = ("attention_norm", "feed_forward_norm")

#: Where ``oarlock.llm``'s LLaMA keeps its parts.
OARLOCK_NAMES: Mapping[str, str] = {
    "embedding": "embedding.weight",
    "blocks.{i}.attention_norm": "blocks.{i}.attention_norm.weight",
    **{f"blocks.{{i}}.{part}": f"blocks.{{i}}.attention.{part}.weight" for part in ATTENTION},
    "blocks.{i}.feed_forward_norm": "blocks.{i}.feed_forward_norm.weight",
    **{f"blocks.{{i}}.{part}": f"blocks.{{i}}.feed_forward.{part}.weight" for part in FEED_FORWARD},
    "norm": "norm.weight",
    "head": "head.weight",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LlamaSizes:
    """Sizes of a LLaMA, and the constants of its norms and positions."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    max_length: int
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                _checks.whole(field.name, value, 1)
            else:
                _checks.real(field.name, value, 0.0, float("inf"), open_low=True, open_high=True)
        for name, of in (("hidden_size", "num_heads"), ("num_heads", "num_kv_heads")):
            if getattr(self, name) % getattr(self, of):
                raise ValueError(
                    f"{name} must be a multiple of {of} = {getattr(self, of)}, got {getattr(self, name)}."
                )

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    @classmethod
    def of(cls, config: Any) -> "LlamaSizes":
        """Sizes from any object with fields of these names, such as ``oarlock.llm``'s ``LlamaConfig``.

        Raises:
            ValueError: it lacks some.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in names if not hasattr(config, name)]
        if missing:
            raise ValueError(
                f"config {type(config).__name__} has no {', '.join(missing)}; pass LlamaSizes(...)."
            )
        return cls(**{name: getattr(config, name) for name in names})

    def parts(self, tied: bool) -> dict[str, tuple[int, ...]]:
        """Shapes of all parts by name, in the order of the model."""
        D, F, V = self.hidden_size, self.intermediate_size, self.vocab_size
        kv = self.num_kv_heads * self.head_size
        shapes: dict[str, tuple[int, ...]] = {"embedding": (V, D)}
        for i in range(self.num_layers):
            block: dict[str, tuple[int, ...]] = {"attention_norm": (D,), "query": (D, D)}
            block |= {"key": (D, kv), "value": (D, kv), "out": (D, D), "feed_forward_norm": (D,)}
            block |= {"gate": (D, F), "up": (D, F), "down": (F, D)}
            shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
        shapes["norm"] = (D,)
        return shapes if tied else shapes | {"head": (D, V)}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LlamaWeights:
    """Sizes and all parts of a LLaMA whose rotary positions turn adjacent pairs.

    Args:
        sizes: of the model.
        parts: matrices and vectors by name; without ``head`` the embedding is the head.

    Raises:
        ValueError: a part is missing, surplus or of another shape, or is not finite; all are named.
    """

    sizes: LlamaSizes
    parts: Mapping[str, Matrix]

    def __post_init__(self):
        shapes = self.sizes.parts(self.tied)
        wrong = [f"{name} is missing" for name in shapes if name not in self.parts]
        wrong += [f"{name} is not a part" for name in self.parts if name not in shapes]
        for name, shape in shapes.items():
            if name in self.parts and tuple(self.parts[name].shape) != shape:
                wrong.append(f"{name} is {tuple(self.parts[name].shape)}, expected {shape}")
        for name, part in self.parts.items():
            if isinstance(part, np.ndarray) and not np.isfinite(part).all():
                wrong.append(f"{name} holds NaN or infinity")
        if wrong:
            raise ValueError(f"the parts do not make a LLaMA: {'; '.join(wrong)}.")

    @property
    def tied(self) -> bool:
        """Whether the embedding is the head too."""
        return "head" not in self.parts

    def untied(self) -> "LlamaWeights":
        """The same function with a head of its own."""
        if not self.tied:
            return self
        head = np.ascontiguousarray(values_of(self.parts["embedding"]).T)
        return dataclasses.replace(self, parts={**self.parts, "head": head})

    def with_values(self) -> "LlamaWeights":
        """The same model with every matrix as float32."""
        return dataclasses.replace(
            self, parts={name: values_of(part) for name, part in self.parts.items()}
        )

    def rounded(self, to: Callable[[np.ndarray], Codes], parts: Iterable[str]) -> "LlamaWeights":
        """The same model with these float matrices on grids, as ``to`` makes them."""
        chosen = set(parts)
        new = {
            name: to(part) if name in chosen and isinstance(part, np.ndarray) else part
            for name, part in self.parts.items()
        }
        return dataclasses.replace(self, parts=new)

    def matrices(self) -> list[str]:
        """Names of the matrices of the blocks."""
        kinds = (*ATTENTION, *FEED_FORWARD)
        return [name for name in self.parts if name.rpartition(".")[2] in kinds]

    def padded(self, multiple: int) -> "LlamaWeights":
        """The same function with the feed-forward width raised to a multiple.

        The added neurons have zero weights, so that their silu(0) 0 = 0 adds nothing. Formats whose
        blocks must divide the width need this, such as Q8_0 and Q4_0 of GGUF with 32.
        """
        width = self.sizes.intermediate_size
        wider = -(-width // _checks.whole("multiple", multiple, 1)) * multiple
        if wider == width:
            return self
        D = self.sizes.hidden_size
        new = dict(self.parts)
        for i in range(self.sizes.num_layers):
            for name, shape in (("gate", (D, wider)), ("up", (D, wider)), ("down", (wider, D))):
                part = self.parts[f"blocks.{i}.{name}"]
                if isinstance(part, Codes):
                    new[f"blocks.{i}.{name}"] = part.padded(*shape)
                else:
                    more = [(0, new_size - size) for new_size, size in zip(shape, part.shape)]
                    new[f"blocks.{i}.{name}"] = np.pad(part, more)
        sizes = dataclasses.replace(self.sizes, intermediate_size=wider)
        return LlamaWeights(sizes=sizes, parts=new)


def random(sizes: LlamaSizes, *, seed: int, tied: bool = False, std: float = 0.02) -> LlamaWeights:
    """Normal weights and gains of one: the shapes of a real model, for measurements of speed."""
    rng = np.random.default_rng(_checks.whole("seed", seed, 0))
    parts: dict[str, Matrix] = {}
    for name, shape in sizes.parts(tied).items():
        if len(shape) == 1:
            parts[name] = np.ones(shape, np.float32)
        else:
            parts[name] = rng.standard_normal(shape, np.float32) * np.float32(std)
    return LlamaWeights(sizes=sizes, parts=parts)


def from_state(
    state: Mapping[str, Any],
    sizes: LlamaSizes,
    *,
    names: Mapping[str, str] = OARLOCK_NAMES,
    codes: Mapping[str, Codes] | None = None,
    pairs: str = "adjacent",
) -> LlamaWeights:
    """A LLaMA from a state dict.

    Args:
        state: arrays or Paddle tensors by name; linear weights as [in, out]. Floating types narrower
            than float32 are widened.
        sizes: of the model.
        names: where each part is in ``state``, with ``{i}`` for the number of the block. A ``head``
            that is not there is the embedding.
        codes: matrices that are quantised, by part or by their name in ``state``; they take the place
            of floats.
        pairs: which elements of a head the rotary positions turn: "adjacent" (2i, 2i + 1) as Meta's
            and ``oarlock.llm``'s, or "halves" (i, i + size / 2) as Hugging Face's and PaddleNLP's,
            whose query and key columns are reordered here.

    Raises:
        ValueError: a part is missing or does not fit; names it.
    """
    _checks.choice("pairs", pairs, ("adjacent", "halves"))
    codes = dict(codes or {})
    tied = names["head"] not in state and not {"head", names["head"]} & set(codes)
    parts: dict[str, Matrix] = {}
    for part in sizes.parts(tied):
        block, _, kind = part.rpartition(".")
        index = block.removeprefix("blocks.")
        name = names[f"blocks.{{i}}.{kind}" if block else part].replace("{i}", index)
        found: Matrix | None = next((codes.pop(key) for key in (part, name) if key in codes), None)
        if found is None and name in state:
            found = _float32(state[name])
        if found is not None:
            if pairs == "halves" and kind in ("query", "key"):
                found = _columns(found, _order(found, sizes, to_pairs=True))
            parts[part] = found
    if codes:
        raise ValueError(f"codes of no part: {', '.join(sorted(codes))}.")
    return LlamaWeights(sizes=sizes, parts=parts)


def from_layer(
    model: nn.Layer, *, names: Mapping[str, str] = OARLOCK_NAMES, pairs: str = "adjacent"
) -> LlamaWeights:
    """A LLaMA from a Paddle layer whose ``config`` has the fields of ``LlamaSizes``.

    Linear layers that were quantised give their codes.

    Args:
        model: the layer.
        names, pairs: as for ``from_state``.

    Raises:
        ValueError: as ``from_state``; or a quantised layer transforms its inputs.
    """
    sizes = LlamaSizes.of(model.config)
    layers = {f"{name}.weight": layer for name, layer in model.named_sublayers()}
    codes = {}
    for pattern in names.values():
        for i in range(sizes.num_layers if "{i}" in pattern else 1):
            name = pattern.replace("{i}", str(i))
            if hasattr(layers.get(name), "codes"):
                codes[name] = of_layer(layers[name], name)
    return from_state(model.state_dict(), sizes, names=names, codes=codes, pairs=pairs)


def _float32(tensor: Any) -> np.ndarray:
    if not isinstance(tensor, np.ndarray):
        tensor = tensor.astype("float32").numpy()
    return np.ascontiguousarray(tensor, np.float32)


def halves(weights: LlamaWeights) -> LlamaWeights:
    """The same function for rotary positions that turn (i, i + size / 2) of a head."""
    parts = {
        name: (
            _columns(part, _order(part, weights.sizes, to_pairs=False))
            if name.endswith((".query", ".key"))
            else part
        )
        for name, part in weights.parts.items()
    }
    return dataclasses.replace(weights, parts=parts)


def _order(matrix: Matrix, sizes: LlamaSizes, *, to_pairs: bool) -> np.ndarray:
    """Columns of a query or key matrix from halves to adjacent pairs, or back."""
    per_head = (2, sizes.head_size // 2) if to_pairs else (sizes.head_size // 2, 2)
    return np.arange(matrix.shape[1]).reshape(-1, *per_head).transpose(0, 2, 1).reshape(-1)


def _columns(matrix: Matrix, order: np.ndarray) -> Matrix:
    if not isinstance(matrix, Codes):
        return np.ascontiguousarray(matrix[:, order])
    parts = {name: getattr(matrix, name)[:, order] for name in ("codes", "scale", "zero")}
    return dataclasses.replace(matrix, **parts)
