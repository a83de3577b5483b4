"""The models that are deployed: real weights to judge quality, real shapes to judge speed."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from oarlock.accept import data
from oarlock.accept.deployment import recurrent
from oarlock.accept.workers import Worker
from oarlock.core_opt.compress.export import codes, gguf, llama, onnx
from oarlock.core_opt.compress.export.codes import Codes
from oarlock.core_opt.compress.export.gguf_vocabulary import Vocabulary
from oarlock.core_opt.compress.export.llama import LlamaSizes, LlamaWeights
from oarlock.llm import models, tokenizers, weights
from oarlock.llm.models.base import LanguageModel
from oarlock.llm.models.llama import Llama, LlamaConfig
from oarlock.llm.models.rwkv4 import RWKV4, RWKV4Config

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One file of a model.

    Args:
        path: where it is to be.
        write: writes it.
        spelt: the same weights in Paddle in float32, once it is written.
    """

    path: Path
    write: Callable[[], None]
    spelt: Callable[[], LanguageModel]


def stories() -> tuple[Llama, Vocabulary]:
    """The LLaMA stories260K and its tokenizer."""
    model = weights.load_llama2c(data.path("stories260K", "stories260K.bin"))
    read = _tokenizer()
    return model, Vocabulary(pieces=read.pieces, scores=read.scores)


def rwkv() -> RWKV4:
    """The RWKV-4 of 660 thousand weights, which reads bytes."""
    return weights.load_rwkv_cpp(data.path("tiny_rwkv", "tiny-rwkv-4v0-660K-FP32.bin"))


def sampled(model: LanguageModel, *, begin: int, texts: int, length: int, seed: int) -> np.ndarray:
    """Texts [texts, length] that a model writes by itself behind the token ``begin``.

    A model's samples are the data on which the mean loss of another in excess of its own estimates the
    Kullback-Leibler divergence of the two.
    """
    first = paddle.full([texts, 1], begin, "int64")
    return model.generate(first, max_new_tokens=length - 1, temperature=1.0, seed=seed).numpy()


def same_tokens(worker: Worker, tokens: np.ndarray) -> int:
    """How many of these texts of stories260K a worker of llama.cpp cuts as our tokenizer does."""
    ours = _tokenizer()
    texts = [ours.decode(row[1:]) for row in tokens]
    theirs = worker.call("tokenize", texts=texts)
    return sum(ours.encode(text) == ids for text, ids in zip(texts, theirs))


def _tokenizer() -> tokenizers.Llama2cTokenizer:
    return tokenizers.Llama2cTokenizer.from_file(data.path("stories260K", "tok512.bin"))


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
def losses(model: LanguageModel, tokens: np.ndarray) -> np.ndarray:
    """Nats of every token but the first, [texts, length - 1] float64."""
    logits = model(paddle.to_tensor(tokens[:, :-1])).numpy().astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(logits, tokens[:, 1:, None], axis=-1)[..., 0]
    return np.log(np.exp(logits).sum(-1)) - chosen


def llama_exports(
    parts: LlamaWeights, folder: Path, library: str, vocabulary: Vocabulary | None = None
) -> dict[str, Export]:
    """The file of each format."""
    found = {}
    if library == "gguf":
        for name, kind in GGUF.items():
            path = folder / f"{name}.gguf"
            embedding = "q8_0" if kind == "q4_0" else kind
            form = {"matrices": kind, "embedding": embedding}
            found[name] = Export(
                path=path,
                write=partial(gguf.write, parts, path, vocabulary=vocabulary, **form),
                spelt=lambda path=path: in_paddle(gguf.read(path).weights()),  # type: ignore[misc]
            )
        return found
    for name, options in ONNX.items():
        path = folder / f"{name}.onnx"
        found[name] = Export(
            path=path,
            write=partial(onnx.write_llama, parts, path, **options),
            spelt=partial(_rounded_llama, parts, name),
        )
    return found


def rwkv_exports(model: RWKV4, folder: Path) -> dict[str, Export]:
    """The ONNX file of each format; llama.cpp begins with RWKV-6."""
    step = recurrent.graph(model)
    return {
        name: Export(
            path=folder / f"{name}.onnx",
            write=partial(recurrent.write, step, folder / f"{name}.onnx", **options),
            spelt=partial(_rounded_rwkv, model, name),
        )
        for name, options in ONNX.items()
    }


def _rounding(name: str) -> Callable[[np.ndarray], Codes]:
    """How the ONNX file of a format rounds a matrix."""
    return partial(
        codes.rounded, bits=4 if name == "W4" else 8, group=None if name == "W8A8" else BLOCK
    )


def _rounded_llama(parts: LlamaWeights, name: str) -> Llama:
    if name == "f32":
        return in_paddle(parts)
    # the embedding stays as floats beside a head of codes
    return in_paddle(parts.untied().rounded(_rounding(name), [*parts.matrices(), "head"]))


def _rounded_rwkv(model: RWKV4, name: str) -> RWKV4:
    copy = RWKV4(model.config)
    copy.set_state_dict(model.state_dict())
    if name != "f32":
        for layer in copy.sublayers():
            if isinstance(layer, paddle.nn.Linear):
                rounded = _rounding(name)(layer.weight.numpy())
                layer.weight.set_value(rounded.values())
    return copy.eval()


def llama_of(shape: Mapping[str, int], seed: int) -> LlamaWeights:
    """Random weights of the shapes of a real LLaMA."""
    return llama.random(LlamaSizes(**shape), seed=seed)


def rwkv_of(shape: Mapping[str, int], seed: int) -> RWKV4:
    """Random weights of the shapes of a real RWKV-4."""
    model = RWKV4(RWKV4Config(**shape), seed=seed)
    rng = np.random.default_rng(seed)
    for layer in model.sublayers():
        if isinstance(layer, paddle.nn.Linear):
            values = rng.standard_normal(layer.weight.shape, np.float32) * np.float32(0.02)
            layer.weight.set_value(values)
    return model.eval()
