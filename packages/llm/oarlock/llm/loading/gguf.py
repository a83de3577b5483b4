"""Checkpoints in GGUF files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from oarlock.llm.loading.checkpoint import Checkpoint, Text, parameters_of
from oarlock.llm.loading.fields import Fields
from oarlock.llm.loading.generation import GGUF, generation
from oarlock.llm.loading.gguf_file import read_gguf
from oarlock.llm.loading.gguf_model import describe
from oarlock.llm.tokenizers.gguf import WHOLE_WORDS, from_gguf

_PREFIX = "tokenizer.ggml."
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_SPELT = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def load_gguf(path: Path, *, float32: bool = False) -> Checkpoint:
    """Read a GGUF file.

    Raises:
        ValueError: it is truncated, corrupt or of a version, type or architecture not read here, or
            a tensor is missing, surplus or misshapen; all such are named.
    """
    file = read_gguf(path)
    description = describe(file)
    try:
        text = _text(file.metadata)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return Checkpoint(
        source=path,
        format="gguf",
        family=description.family,
        config=description.config,
        parameters=parameters_of(description, file.tensors, path, float32=float32),
        text=text,
        generation=generation(Fields(file.metadata, str(path)), GGUF),
    )


def _text(metadata: Mapping[str, Any]) -> Text:
    kind = metadata.get(f"{_PREFIX}model", "none")
    if kind == "none":
        return Text()
    tokenizer = from_gguf(metadata)
    tokens = metadata[f"{_PREFIX}tokens"]

    def token(name: str) -> int | None:
        found = metadata.get(_PREFIX + name)
        if found is not None and (
            isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < len(tokens)
        ):
            raise ValueError(f"{_PREFIX}{name} must be a token's id, got {found!r}.")
        return found

    ends = [end for end in map(token, _ENDS) if end is not None]
    spelt = {ours: token(f"{name}_token_id") for name, ours in _SPELT.items()}
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise ValueError(f"tokenizer.chat_template must be a text, got {type(template).__name__}.")
    usual = kind == "llama" or metadata.get(f"{_PREFIX}pre") in WHOLE_WORDS
    return Text(
        tokenizer=tokenizer,
        bos=token("bos_token_id"),
        eos=tuple(dict.fromkeys(ends)),
        adds_bos=bool(metadata.get(f"{_PREFIX}add_bos_token", usual)),
        chat_template=template,
        template_tokens={name: tokens[i] for name, i in spelt.items() if i is not None},
    )
