"""Backends from what a user types."""

import os
import re
from pathlib import Path

from oarlock.llm import models, tokenizers, weights
from oarlock.llm.eval import Backend, EndpointBackend, LanguageModelBackend

_GGML = b"fmgg"  # how files of rwkv.cpp begin


def open_backend(
    spec: str,
    *,
    rows: int = 1,
    start: int | None = None,
    chat: bool = False,
    api_key_env: str | None = None,
) -> Backend:
    """Backend of ``URL#MODEL`` or ``PATH,TOKENIZER``.

    Raises:
        ValueError: it is neither, or the files do not fit.
    """
    if re.match(r"https?://", spec):
        url, _, name = spec.partition("#")
        if not name:
            raise ValueError(f"a server must be given as URL#MODEL, got {spec!r}.")
        if api_key_env is not None and api_key_env not in os.environ:
            raise ValueError(f"api_key_env names {api_key_env}, which is not set.")
        key = None if api_key_env is None else os.environ[api_key_env]
        return EndpointBackend(url, name, mode="chat" if chat else "completions", api_key=key)
    place, mark, tokenizer_place = spec.rpartition(",")
    if not mark:
        raise ValueError(f"a model must be given as PATH,TOKENIZER or URL#MODEL, got {spec!r}.")
    path = Path(place)
    model: models.LanguageModel
    if path.is_dir():
        model = models.load(path)
    elif not path.is_file():
        raise ValueError(f"no file or folder {path}.")
    else:
        with path.open("rb") as file:
            ggml = file.read(4) == _GGML
        model = weights.load_rwkv_cpp(path) if ggml else weights.load_llama2c(path)
    tokenizer = _tokenizer(tokenizer_place)
    special = tokenizer.special_tokens
    return LanguageModelBackend(
        model,
        tokenizer,
        name=path.stem,
        start=special.get("<s>") if start is None else start,
        end=special.get("</s>", special.get("<|endoftext|>")),
        rows=rows,
    )


def _tokenizer(place: str) -> tokenizers.Tokenizer:
    if place == "bytes":
        return tokenizers.ByteTokenizer()
    suffixes = {
        ".bin": tokenizers.Llama2cTokenizer.from_file,
        ".model": tokenizers.SentencePieceTokenizer.from_file,
        ".json": tokenizers.BPETokenizer.from_file,
    }
    suffix = Path(place).suffix
    if suffix not in suffixes:
        raise ValueError(
            f"tokenizer must be bytes or end with {', '.join(suffixes)}, got {place!r}."
        )
    return suffixes[suffix](place)


def file_name(model: str) -> str:
    """The model's name as the name of a file."""
    return re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model"
