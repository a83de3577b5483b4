"""From a model in one format to a file or folder in another."""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.llm import loading
from oarlock.llm.loading import Checkpoint
from oarlock.llm.loading.generation import GGUF
from oarlock.llm.loading.others import shapes
from oarlock.llm.loading.stored import Part
from oarlock.llm.writing import (
    coding,
    gguf_file,
    gguf_model,
    gguf_tokenizer,
    hugging_face_model,
    hugging_face_text,
    safetensors_file,
    tensors,
    whole,
)
from oarlock.llm.writing.tensors import Tensor

FORMATS = ("hugging face", "gguf", "oarlock")
DTYPES = {"keep": None, "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
SHARD_BYTES = 5 * 10**9
#: Tensors that GGUF's readers want in float32, whatever the others are.
_FLOAT32 = ("position_embd.weight", "ffn_gate_inp.weight")
_TABLES = ("token_embd.weight", "output.weight")

#: Told the name of a tensor that is written, the bytes before it, and of all.
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written.

    Args:
        path: file or folder.
        format: "hugging face", "gguf" or "oarlock".
        kinds: bytes in each kind of numbers.
        floats: matrices that stay floats though codes were asked for: rows are no multiple of 32.
        rounded_anew: how many matrices were codes that have no place in the target's, by their format in the source.
        notes: what the source says and the format has no place for.
    """

    path: Path
    format: str
    kinds: Mapping[str, int]
    floats: tuple[str, ...] = ()
    rounded_anew: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    format: str | None = None,
    dtype: str = "keep",
    max_length: int | None = None,
    pre: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    threads: int | None = None,
    progress: Progress = lambda name, done, total: None,
) -> Written:
    """Write a model in another format; the target appears when it is complete.

    Args:
        source: what ``loading.load`` reads.
        target: a ``.gguf`` file, or a folder.
        format: one of ``FORMATS``; None for what the target's name says, Hugging Face's for folders.
        dtype: "keep" for every number as it is (codes stay codes in GGUF), or "fp32", "fp16", "bf16".
        max_length: positions at most, where the model's own are more than are needed.
        pre: GGUF: name of the expression that cuts texts into words, where it is not found.
        shard_bytes: of a safetensors file at most.
        force: replace what is there.
        threads: that round; None for all.
        progress: told of each tensor.

    Raises:
        ValueError: the format cannot express the model, its tokenizer or its numbers; nothing is left.
    """
    source, target = Path(source), Path(target)
    format = _format(target) if format is None else format
    for name, value, known in (("format", format, FORMATS), ("dtype", dtype, tuple(DTYPES))):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes must be positive, got {shard_bytes}.")
    _check_places(source, target, force)
    checkpoint = loading.load(source, max_length=max_length)
    wanted = DTYPES[dtype]

    def choose(name: str, shape: tuple[int, ...], kinds: list[str]) -> str:
        if format == "gguf" and (len(shape) == 1 or name.endswith(_FLOAT32)):
            return "float32"
        if wanted is not None:
            return wanted
        if all(kind in coding.FLOATS for kind in kinds):
            return tensors.widest(kinds)
        if format == "gguf" and len(set(kinds)) == 1:
            return kinds[0]
        raise ValueError(
            f"dtype must be fp32, fp16 or bf16: {name} is made of {' and '.join(dict.fromkeys(kinds))}, which "
            f"{'one tensor' if format == 'gguf' else 'a folder of floats'} does not hold."
        )

    job = _Job(checkpoint, target, force, threads, progress)
    if format == "gguf":
        return job.gguf(choose, pre=pre)
    if pre is not None:
        raise ValueError(f"pre is for GGUF files only, got {pre!r}.")
    return job.folder(choose, own=format == "oarlock", shard_bytes=shard_bytes)


def quantize(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    weights: str,
    max_length: int | None = None,
    pre: str | None = None,
    force: bool = False,
    threads: int | None = None,
    progress: Progress = lambda name, done, total: None,
) -> Written:
    """Write a GGUF file whose matrices are codes that ``LLM(target, weights=weights)`` takes as they are.

    int8 is Q8_0 and int4 is Q4_0, with embedding and head in Q8_0 as the engine has them beside int4. A tensor at a
    time is read, rounded and written. Codes of the same format stay as they are, others are rounded anew.

    Args:
        source: what ``loading.load`` reads.
        target: a ``.gguf`` file.
        weights: "int8" or "int4".
        max_length, pre, force, threads, progress: as of ``convert``.

    Raises:
        ValueError: as ``convert``, or a weight is not finite.
    """
    source, target = Path(source), Path(target)
    if weights not in coding.ROUNDED:
        raise ValueError(
            f"weights must be one of {', '.join(coding.ROUNDED)} to be quantised, got {weights!r}."
        )
    if target.suffix != ".gguf":
        raise ValueError(f"target must be a .gguf file, got {target}.")
    _check_places(source, target, force)
    checkpoint = loading.load(source, max_length=max_length)
    floats: list[str] = []

    def choose(name: str, shape: tuple[int, ...], kinds: list[str]) -> str:
        if len(shape) == 1 or name.endswith(_FLOAT32):
            return "float32"
        if shape[-1] % 32:
            floats.append(name)
            return tensors.widest(kinds)
        return coding.ROUNDED["int8" if name in _TABLES else weights]

    written = _Job(checkpoint, target, force, threads, progress).gguf(choose, pre=pre)
    return dataclasses.replace(written, floats=tuple(floats))


def _format(target: Path) -> str:
    if target.suffix == ".gguf":
        return "gguf"
    if target.suffix in (".bin", ".safetensors", ".pt", ".pth", ".onnx"):
        raise ValueError(f"target must be a .gguf file or a folder, got {target}.")
    return "hugging face"


def _check_places(source: Path, target: Path, force: bool) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        raise ValueError(f"target must not be the source, {source}.")
    whole.check(target, force=force)


@dataclasses.dataclass(frozen=True, slots=True)
class _Job:
    checkpoint: Checkpoint
    target: Path
    force: bool
    threads: int | None
    progress: Progress

    def gguf(self, choose: tensors.Choice, *, pre: str | None) -> Written:
        """Write a GGUF file."""
        checkpoint = self.checkpoint
        model = gguf_model.describe(checkpoint.family, checkpoint.config)
        vocab_size = checkpoint.config.vocab_size
        text = gguf_tokenizer.describe(
            checkpoint.text, vocab_size, architecture=model.architecture, pre=pre
        )
        metadata: dict[str, Any] = {"general.name": checkpoint.source.stem}
        metadata |= {f"{model.architecture}.{key}": value for key, value in model.metadata.items()}
        metadata |= text.metadata
        metadata |= {
            GGUF[name]: int(value) if name == "top_k" else float(value)
            for name, value in checkpoint.generation.items()
            if name in GGUF
        }
        left = tuple(
            f"the author's default of {name}, {value}"
            for name, value in checkpoint.generation.items()
            if name not in GGUF
        )
        planned = [*model.more, *tensors.plan(model.parts, checkpoint.parameters, choose)]
        tensors.check_whole(planned)
        with whole.whole(self.target, force=self.force) as partial:
            gguf_file.write(partial, model.architecture, metadata, planned, self._content(planned))
        return Written(
            path=self.target,
            format="gguf",
            kinds=_kinds(planned),
            rounded_anew=self._rounded(planned),
            notes=text.notes + left,
        )

    def folder(self, choose: tensors.Choice, *, own: bool, shard_bytes: int) -> Written:
        """Write a folder of Hugging Face's, or of our own."""
        checkpoint = self.checkpoint
        if own:
            fields: dict[str, Any] = {
                "model": checkpoint.family,
                "config": checkpoint.config.to_dict(),
            }
            parts = {
                name: Part(name=name, shape=shape)
                for name, shape in shapes(checkpoint.family, checkpoint.config).items()
            }
            planned = tensors.plan(parts, checkpoint.parameters, lambda *_: "float32")
        else:
            fields, parts = hugging_face_model.describe(checkpoint.family, checkpoint.config)
            planned = tensors.plan(parts, checkpoint.parameters, choose)
            kinds = [tensor.kind for tensor in planned if len(tensor.shape) > 1]
            fields |= _ends(checkpoint) | {"torch_dtype": max(kinds, key=kinds.count)}
        hugging_face_text.check(checkpoint.text)
        tensors.check_whole(planned)
        with whole.whole(self.target, force=self.force) as partial:
            partial.mkdir()
            content = self._content(planned)
            safetensors_file.write(partial, planned, content, most_bytes=shard_bytes)
            hugging_face_text.write(checkpoint, partial)
            text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
            (partial / "config.json").write_text(text, encoding="utf-8")
        return Written(
            path=self.target,
            format="oarlock" if own else "hugging face",
            kinds=_kinds(planned),
        )

    def _rounded(self, planned: list[Tensor]) -> dict[str, int]:
        """Parameters that are codes here and there, but not the same."""
        found: dict[str, int] = {}
        for tensor in planned:
            if tensor.kind not in coding.BLOCKS:
                continue
            for (ours, _), kind in zip(tensor.parts, tensor.kinds):
                format = self.checkpoint.parameters.format(ours)
                if format not in coding.FLOATS and not coding.keeps(kind, tensor.kind):
                    found[format] = found.get(format, 0) + 1
        return found

    def _content(self, planned: list[Tensor]) -> Callable[[Tensor], NDArray[Any]]:
        total, done = sum(tensor.num_bytes for tensor in planned), 0

        def content(tensor: Tensor) -> NDArray[Any]:
            nonlocal done
            self.progress(tensor.name, done, total)
            done += tensor.num_bytes
            with np.errstate(invalid="ignore"):
                return tensors.content(tensor, self.checkpoint.parameters, threads=self.threads)

        return content


def _ends(checkpoint: Checkpoint) -> dict[str, Any]:
    """Tokens, said even where there are none: architectures have defaults of their own."""
    text = checkpoint.text
    known = {} if text.tokenizer is None else text.tokenizer.special_tokens
    eos: Any = list(text.eos) if len(text.eos) > 1 else next(iter(text.eos), None)
    pad = known.get(text.template_tokens.get("pad_token", ""))
    return {"bos_token_id": text.bos, "eos_token_id": eos, "pad_token_id": pad}


def _kinds(planned: list[Tensor]) -> dict[str, int]:
    found: dict[str, int] = {}
    for tensor in planned:
        found[tensor.kind] = found.get(tensor.kind, 0) + tensor.num_bytes
    return found
