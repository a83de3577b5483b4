"""Hugging Face's folders: ``config.json``, safetensors in one file or several, tokenizer, templates."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from oarlock.llm.loading import quantized
from oarlock.llm.loading.checkpoint import Checkpoint, Text, parameters_of
from oarlock.llm.loading.fields import Fields, read_json
from oarlock.llm.loading.generation import HUGGING_FACE, generation
from oarlock.llm.loading.hugging_face_config import describe
from oarlock.llm.loading.stored import Stored
from oarlock.llm.tokenizers import BPETokenizer, SentencePieceTokenizer, Tokenizer

_FORMATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "I32": "int32", "I64": "int64", "I8": "int8"}  # fmt: skip
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int32": 4, "int64": 8, "int8": 1}


def load_hugging_face(folder: Path, *, float32: bool = False) -> Checkpoint:
    """Read a folder as ``transformers`` writes it.

    Raises:
        ValueError: a file is truncated or another, the architecture or a field is none of ours, or a
            tensor is missing, surplus or misshapen; all such are named.
    """
    fields = read_json(folder / "config.json")
    description = describe(fields)
    stored = read_safetensors(folder)
    if "quantization_config" in fields:
        if description.family == "gpt":
            raise ValueError(
                f"{folder}: quantization_config must be absent: GPT-2's products lie the other way round, of "
                "which quantised layouts say nothing."
            )
        settings = Fields(fields.mapping("quantization_config"), f"{folder}, quantization_config")
        stored = quantized.decoded(settings, stored)
    unread = [t.name for t in stored.values() if t.format in ("int32", "int64", "int8")]
    stored = {name: tensor for name, tensor in stored.items() if name not in unread}
    return Checkpoint(
        source=folder,
        format="hugging face",
        family=description.family,
        config=description.config,
        parameters=parameters_of(description, stored, folder, float32=float32),
        text=read_text(folder, fields),
        generation=generation(_optional(folder / "generation_config.json"), HUGGING_FACE),
    )


def read_safetensors(folder: Path) -> dict[str, Stored]:
    """All tensors of ``model.safetensors`` or of the files that its index names; none is read."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return tensors_of(folder / "model.safetensors")
    places = read_json(index).mapping("weight_map")
    found: dict[str, Stored] = {}
    for file in sorted(set(map(str, places.values()))):
        if Path(file).name != file:
            raise ValueError(f"{index}: files must lie beside it, got {file!r}.")
        for name, tensor in tensors_of(folder / file).items():
            if places.get(name) != file:
                raise ValueError(f"{index} and {file} disagree on where {name} is.")
            found[name] = tensor
    missing = sorted(set(places) - set(found))
    if missing:
        raise ValueError(f"{index} names tensors that are not there: {', '.join(missing[:50])}.")
    return found


def tensors_of(path: Path) -> dict[str, Stored]:
    """All tensors of a safetensors file; none is read."""
    try:
        file = safetensors.safe_open(path, "numpy")  # type: ignore[no-untyped-call]
        slices = {name: file.get_slice(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        size = path.stat().st_size
        raise ValueError(
            f"{path} ({size} bytes) is truncated or no safetensors file: {error}."
        ) from error
    found = {}
    for name, piece in slices.items():
        shape, kind = tuple(piece.get_shape()), piece.get_dtype()
        if kind not in _FORMATS:
            raise ValueError(
                f"{path}: tensor {name} is {kind}, must be one of {', '.join(_FORMATS)}."
            )
        size = int(np.prod(shape, dtype=object)) * _BYTES[_FORMATS[kind]]
        read = functools.partial(file.get_tensor, name)
        found[name] = Stored(
            name=name, shape=shape, format=_FORMATS[kind], num_bytes=size, read=read
        )
    return found


def read_text(folder: Path, config: Fields) -> Text:
    """Tokenizer, special tokens and chat template of a folder."""
    tokenizer = _tokenizer(folder)
    settings = _optional(folder / "tokenizer_config.json")
    more = _optional(folder / "special_tokens_map.json")
    spellings = _spellings(settings) | {
        name: text for name, text in _spellings(more).items() if name not in _spellings(settings)
    }
    drawing = _optional(folder / "generation_config.json")
    bos, eos = _first(drawing, config, name="bos_token_id"), _ends(drawing, config)
    if tokenizer is not None:
        ids = _ids(tokenizer, spellings)
        bos = bos if bos is not None else ids.get("bos_token")
        if "eos_token" in ids and ids["eos_token"] not in eos:
            eos = (*eos, ids["eos_token"])
    return Text(
        tokenizer=tokenizer,
        bos=bos,
        eos=eos,
        adds_bos=bos is not None and _adds_bos(tokenizer, settings, bos),
        chat_template=_chat_template(folder, settings),
        template_tokens=spellings,
    )


def _tokenizer(folder: Path) -> Tokenizer | None:
    if (folder / "tokenizer.json").exists():
        return BPETokenizer.from_file(folder / "tokenizer.json")
    if (folder / "tokenizer.model").exists():
        return SentencePieceTokenizer.from_file(folder / "tokenizer.model")
    if (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
        return BPETokenizer.from_gpt2_files(folder / "vocab.json", folder / "merges.txt")
    return None


def _optional(path: Path) -> Fields:
    return read_json(path) if path.exists() else Fields({}, str(path))


def _spellings(fields: Fields) -> dict[str, str]:
    """Texts of the fields that name a special token; each a text or an object with one."""
    found = {}
    for name, value in fields.values.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def _ids(tokenizer: Tokenizer, spellings: Mapping[str, str]) -> dict[str, int]:
    special = tokenizer.special_tokens
    return {name: special[text] for name, text in spellings.items() if text in special}


def _first(*sources: Fields, name: str) -> int | None:
    for fields in sources:
        found = fields.values.get(name)
        if isinstance(found, list):
            found = found[0] if found else None
        if found is not None:
            if isinstance(found, bool) or not isinstance(found, int) or found < 0:
                raise ValueError(f"{fields.source}: {name} must be a token id, got {found!r}.")
            return found
    return None


def _ends(*sources: Fields) -> tuple[int, ...]:
    for fields in sources:
        found: Any = fields.values.get("eos_token_id")
        if found is not None:
            ends = found if isinstance(found, list) else [found]
            if not all(isinstance(end, int) and end is not True and end >= 0 for end in ends):
                raise ValueError(f"{fields.source}: eos_token_id must be token ids, got {found!r}.")
            return tuple(dict.fromkeys(ends))
    return ()


def _adds_bos(tokenizer: Tokenizer | None, settings: Fields, bos: int) -> bool:
    if isinstance(tokenizer, BPETokenizer):
        return tokenizer.begins_with()[:1] == [bos]
    return settings.flag("add_bos_token", default=isinstance(tokenizer, SentencePieceTokenizer))


def _chat_template(folder: Path, settings: Fields) -> str | None:
    alone = folder / "chat_template.jinja"
    if alone.exists():
        try:
            return alone.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{alone} is no UTF-8: {error}.") from error
    found = settings.values.get("chat_template")
    if found is None:
        found = _optional(folder / "chat_template.json").values.get("chat_template")
    if isinstance(found, list):
        named = {
            one["name"]: one["template"]
            for one in found
            if isinstance(one, dict) and {"name", "template"} <= set(one)
        }
        found = named.get("default")
    if found is not None and not isinstance(found, str):
        raise ValueError(f"{settings.source}: chat_template must be a text, got {type(found)}.")
    return found
