"""GGUF files of LLaMAs, which llama.cpp and what is built on it run.

>>> gguf.write(llama.from_layer(model), "model.gguf", matrices="q4_0", vocabulary=vocabulary)
>>> gguf.read("model.gguf").weights()

The file holds the SHA-256 of itself, so that ``read`` refuses one that was damaged.
"""

import dataclasses
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, LlamaFileType
from gguf.constants import GGMLQuantizationType as Type

from ... import _checks
from . import files, gguf_blocks
from .codes import Codes, Matrix
from .gguf_vocabulary import Vocabulary
from .llama import LlamaSizes, LlamaWeights

#: Types that floats can be written as.
FORMATS = {
    "f32": Type.F32,
    "f16": Type.F16,
    "bf16": Type.BF16,
    "q8_0": Type.Q8_0,
    "q4_0": Type.Q4_0,
}
_FILE_TYPES = {
    Type.F32: LlamaFileType.ALL_F32,
    Type.F16: LlamaFileType.MOSTLY_F16,
    Type.BF16: LlamaFileType.MOSTLY_BF16,
    Type.Q8_0: LlamaFileType.MOSTLY_Q8_0,
    Type.Q4_0: LlamaFileType.MOSTLY_Q4_0,
    Type.Q4_1: LlamaFileType.MOSTLY_Q4_1,
}
_BLOCK_NAMES = {
    "attention_norm": "attn_norm",
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "out": "attn_output",
    "feed_forward_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
_TOP_NAMES = {"embedding": "token_embd", "norm": "output_norm", "head": "output"}
#: Sizes by their key in the file.
_KEYS = {
    "vocab_size": "llama.vocab_size",
    "hidden_size": "llama.embedding_length",
    "num_layers": "llama.block_count",
    "num_heads": "llama.attention.head_count",
    "num_kv_heads": "llama.attention.head_count_kv",
    "intermediate_size": "llama.feed_forward_length",
    "max_length": "llama.context_length",
    "rope_theta": "llama.rope.freq_base",
    "norm_epsilon": "llama.attention.layer_norm_rms_epsilon",
}
_DIGEST = "oarlock.sha256"
_BLANK = "0" * 64
# It tells the name of every file, and that it is little-endian, at the level of information.
logging.getLogger("gguf").setLevel(logging.WARNING)
_HEAD = 1 << 12  # bytes from the start in which the digest lies


def tensor_name(part: str) -> str:
    """The name that llama.cpp gives to a part of ``LlamaWeights``."""
    block, _, kind = part.rpartition(".")
    if not block:
        return f"{_TOP_NAMES[part]}.weight"
    return f"blk.{block.removeprefix('blocks.')}.{_BLOCK_NAMES[kind]}.weight"


def write(
    weights: LlamaWeights,
    path: str | os.PathLike,
    *,
    matrices: str = "f16",
    embedding: str | None = None,
    vocabulary: Vocabulary | None = None,
    name: str = "oarlock",
) -> None:
    """Write a LLaMA; the file appears only when complete.

    Matrices that are ``Codes`` keep their codes, whatever the formats say: up to 4 bits as Q4_0 or
    Q4_1, more as Q8_0. Vectors stay float32.

    Args:
        weights: of the model.
        path: of the file, in a folder that is there.
        matrices: of the blocks when they are floats: f32, f16, bf16, q8_0 or q4_0 (rounded to nearest).
        embedding: the same for embedding and head; None takes that of the matrices, but q8_0 for q4_0.
        vocabulary: of the tokenizer; None writes a model that takes only ids.
        name: shown by programs.

    Raises:
        ValueError: a format is unknown, a width is no multiple of 32 for q8_0 and q4_0, or the
            vocabulary is of another size.
        WriteFailed: the operating system refused; nothing is left at ``path``.
    """
    _checks.choice("matrices", matrices, tuple(FORMATS))
    if embedding is None:
        embedding = "q8_0" if matrices == "q4_0" else matrices
    _checks.choice("embedding", embedding, tuple(FORMATS))
    plan = {
        part: _type(part, matrix, FORMATS[matrices if "." in part else embedding])
        for part, matrix in weights.parts.items()
    }
    kinds = [plan[part] for part in weights.matrices()]
    if vocabulary is not None and len(vocabulary.pieces) != weights.sizes.vocab_size:
        raise ValueError(
            f"vocabulary must have the {weights.sizes.vocab_size} tokens of the model, got"
            f" {len(vocabulary.pieces)}."
        )
    with files.whole(path) as (partial,):
        writer = gguf.GGUFWriter(partial, "llama")
        try:
            writer.add_string(_DIGEST, _BLANK)
            writer.add_name(name)
            writer.add_file_type(_FILE_TYPES[max(kinds, key=kinds.count)])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            _describe(writer, weights.sizes)
            if vocabulary is None:
                writer.add_tokenizer_model("none")
            else:
                vocabulary.describe(writer)
            for part, matrix in weights.parts.items():
                kind = plan[part]
                shape = _rows(part, matrix.shape)
                block, size = GGML_QUANT_SIZES[kind]
                num_bytes = int(np.prod(shape)) // block * size
                dtype = np.dtype(np.float32)
                writer.add_tensor_info(tensor_name(part), shape, dtype, num_bytes, raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for part, matrix in weights.parts.items():
                writer.write_tensor_data(_content(part, matrix, plan[part]))
        finally:
            writer.close()
        _sign(partial)


@dataclasses.dataclass(frozen=True, slots=True)
class GGUFFile:
    """What a GGUF file holds.

    Args:
        path: of the file.
        metadata: values by key.
        types: names of the types of the tensors, such as "Q4_0".
        signed: whether the file held its checksum, which then was right.
    """

    path: Path
    metadata: Mapping[str, Any]
    types: Mapping[str, str]
    signed: bool
    _tensors: Mapping[str, Any]

    def tensor(self, name: str) -> np.ndarray:
        """The float32 values of a tensor, as ggml stores it: a matrix is [out, in]."""
        if name not in self._tensors:
            raise ValueError(
                f"{self.path} has no tensor {name!r}; {_checks.suggestion(name, self.types)}"
            )
        tensor = self._tensors[name]
        values = gguf.quants.dequantize(np.asarray(tensor.data), tensor.tensor_type)
        return np.asarray(values, np.float32).reshape(tuple(map(int, tensor.shape[::-1])))

    def weights(self) -> LlamaWeights:
        """The LLaMA of the file, all parts as float32.

        Raises:
            ValueError: it is another architecture, or a size or part is missing.
        """
        architecture = self.metadata.get("general.architecture")
        if architecture != "llama":
            raise ValueError(f"{self.path} is a {architecture!r}; only 'llama' can be read.")
        missing = [key for key in _KEYS.values() if key not in self.metadata]
        if missing:
            raise ValueError(f"{self.path} lacks {', '.join(missing)}.")
        sizes = LlamaSizes(**{name: self.metadata[key] for name, key in _KEYS.items()})
        tied = tensor_name("head") not in self.types
        parts: dict[str, Matrix] = {}
        for part in sizes.parts(tied):
            values = self.tensor(tensor_name(part))
            parts[part] = values if values.ndim == 1 or part == "embedding" else values.T
        return LlamaWeights(sizes=sizes, parts=parts)


def read(path: str | os.PathLike) -> GGUFFile:
    """Open a GGUF file, whose tensors stay on the disk until they are asked for.

    Raises:
        ValueError: it is no GGUF file, is truncated, or (if ``write`` made it) any byte was changed.
    """
    path = Path(path)
    signed = _verify(path)
    try:
        reader = gguf.GGUFReader(path)
        metadata = {
            key: field.contents() for key, field in reader.fields.items() if key[:5] != "GGUF."
        }
        tensors = {tensor.name: tensor for tensor in reader.tensors}
    # What the package raises on damaged files depends on where they are damaged.
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is truncated or no GGUF file: {error}."
        ) from error
    types = {name: tensor.tensor_type.name for name, tensor in tensors.items()}
    return GGUFFile(path, metadata, types, signed, tensors)


def _describe(writer: gguf.GGUFWriter, sizes: LlamaSizes) -> None:
    for name, key in _KEYS.items():
        value = getattr(sizes, name)
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    writer.add_rope_dimension_count(sizes.head_size)


def _rows(part: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a part as ggml stores it."""
    return shape if part == "embedding" else shape[::-1]


def _type(part: str, matrix: Matrix, wanted: Type) -> Type:
    """The type that a part is written as; ValueError if it cannot be."""
    if isinstance(matrix, Codes):
        if part == "embedding":
            raise ValueError("embedding: give it as floats; its format is an argument of write.")
        return gguf_blocks.kind(matrix, part)
    if matrix.ndim == 1:
        return Type.F32
    block = GGML_QUANT_SIZES[wanted][0]
    if (width := _rows(part, matrix.shape)[-1]) % block:
        raise ValueError(
            f"{part}: {wanted.name} needs a width that is a multiple of {block}, got {width};"
            f" LlamaWeights.padded({block}) widens feed-forward parts without changing the function."
        )
    return wanted


def _content(part: str, matrix: Matrix, kind: Type) -> np.ndarray:
    if isinstance(matrix, Codes):
        return gguf_blocks.packed(matrix, part)
    values = np.ascontiguousarray(matrix if part == "embedding" else matrix.T, np.float32)
    if kind == Type.F16 and np.abs(values).max() > np.finfo(np.float16).max:
        raise ValueError(
            f"{part} holds {np.abs(values).max():g}, beyond float16; write it as bf16."
        )
    return gguf.quants.quantize(values, kind)


def _digest(path: Path, at: int) -> bytes:
    """SHA-256 of a file as it is with a blank digest, in hexadecimal digits."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        found.update(file.read(at) + _BLANK.encode())
        file.seek(at + len(_BLANK))
        for chunk in _chunks(file):
            found.update(chunk)
    return found.hexdigest().encode()


def _chunks(file: Any) -> Iterator[bytes]:
    while chunk := file.read(1 << 22):
        yield chunk


def _place(path: Path) -> int | None:
    """Where the digest begins in a file; None if it has none."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    at = head.find(_DIGEST.encode())
    # the key, the type of its value (4 bytes) and its length (8 bytes)
    return None if at < 0 else at + len(_DIGEST) + 12


def _sign(path: Path) -> None:
    at = _place(path)
    if at is None:
        raise AssertionError("write puts the digest among the first keys")
    digest = _digest(path, at)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(digest)


def _verify(path: Path) -> bool:
    """Whether the file holds its digest; ValueError if that is wrong."""
    at = _place(path)
    if at is None:
        return False
    with path.open("rb") as file:
        file.seek(at)
        stored = file.read(len(_BLANK))
    if stored != _digest(path, at):
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) was damaged or changed: its SHA-256 is not the one"
            " that it holds. Export it again."
        )
    return True
