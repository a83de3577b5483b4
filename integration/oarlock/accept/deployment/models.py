"""The models that are deployed: real weights to judge quality, real shapes to judge speed."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from oarlock.accept import data
from oarlock.core_opt.compress.export import codes, gguf, llama, onnx
from oarlock.core_opt.compress.export.gguf_vocabulary import Vocabulary
from oarlock.core_opt.compress.export.llama import LlamaSizes, LlamaWeights
from oarlock.llm import models, tokenizers, weights
from oarlock.llm.models.llama import Llama, LlamaConfig

BLOCK = 32  #: of Q8_0 and Q4_0, which must divide every width

#: How each format is written, by library.
GGUF: Mapping[str, str] = {
    "f32": "f32",
    "f16": "f16",
    "bf16": "bf16",
    "W8": "q8_0",
    "W4": "q4_0",
}
ONNX: Mapping[str, Mapping[str, Any]] = {
    "f32": {},
    "W8": {"method": "blocks", "bits": 8},
    "W8A8": {"method": "int8"},
    "W4": {"method": "blocks", "bits": 4},
}


def stories() -> tuple[Llama, Vocabulary]:
    """The LLaMA stories260K and its tokenizer."""
    model = weights.load_llama2c(data.path("stories260K", "stories260K.bin"))
    read = tokenizers.Llama2cTokenizer.from_file(data.path("stories260K", "tok512.bin"))
    return model, Vocabulary(pieces=read.pieces, scores=read.scores)


def sampled(model: Llama, *, texts: int, length: int, seed: int) -> np.ndarray:
    """Texts [texts, length] that a model writes by itself, each from its first token on.

    A model's samples are the data on which the mean loss of another in excess of its own estimates the
    Kullback-Leibler divergence of the two.
    """
    begin = paddle.full([texts, 1], tokenizers.llama2c.BOS, "int64")
    return model.generate(begin, max_new_tokens=length - 1, temperature=1.0, seed=seed).numpy()


def in_paddle(parts: LlamaWeights) -> Llama:
    """The model of these parts in Paddle, in float32."""
    config = LlamaConfig(**dataclasses.asdict(parts.sizes), tie_embeddings=parts.tied)
    model = Llama(config)
    state: dict[str, np.ndarray] = {}
    for part, matrix in parts.with_values().parts.items():
        block, _, kind = part.rpartition(".")
        name = llama.OARLOCK_NAMES[f"blocks.{{i}}.{kind}" if block else part]
        state[name.replace("{i}", block.removeprefix("blocks."))] = np.ascontiguousarray(matrix)
    models.registry.assign(model, state, "the exported file")
    return model.eval()


@paddle.no_grad()
def losses(model: Llama, tokens: np.ndarray) -> np.ndarray:
    """Nats of every token but the first, [texts, length - 1] float64."""
    logits = model(paddle.to_tensor(tokens[:, :-1])).numpy().astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
    return np.log(np.exp(logits).sum(-1)) - chosen


def writers(
    parts: LlamaWeights, folder: Path, library: str, vocabulary: Vocabulary | None = None
) -> dict[str, tuple[Path, Callable[[], None]]]:
    """The file of each format, and what writes it."""
    if library == "gguf":
        return {
            name: (
                folder / f"{name}.gguf",
                partial(
                    gguf.write,
                    parts,
                    folder / f"{name}.gguf",
                    matrices=kind,
                    embedding=kind if kind != "q4_0" else "q8_0",
                    vocabulary=vocabulary,
                ),
            )
            for name, kind in GGUF.items()
        }
    return {
        name: (
            folder / f"{name}.onnx",
            partial(onnx.write_llama, parts, folder / f"{name}.onnx", **options),
        )
        for name, options in ONNX.items()
    }


def spelt_out(parts: LlamaWeights, name: str, path: Path, library: str) -> LlamaWeights:
    """The weights of a written file as float32."""
    if library == "gguf":
        return gguf.read(path).weights()
    if name == "f32":
        return parts
    # ONNX keeps the embedding as floats beside a head of codes
    bits, group = (4 if name == "W4" else 8), (None if name == "W8A8" else BLOCK)
    to = partial(codes.rounded, bits=bits, group=group)
    return parts.untied().rounded(to, [*parts.matrices(), "head"]).with_values()


def of_shape(shape: Mapping[str, int], seed: int) -> LlamaWeights:
    """Random weights of the shapes of a real model."""
    return llama.random(LlamaSizes(**shape), seed=seed)
