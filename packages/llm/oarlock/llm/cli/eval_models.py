"""Backends from what a user types."""

import fnmatch
import hashlib
import os
import re
from pathlib import Path

from oarlock.llm import loading, tokenizers
from oarlock.llm.cli.tokenizer import read_tokenizer
from oarlock.llm.engine import LLM
from oarlock.llm.eval import Backend, EndpointBackend, EngineBackend, LanguageModelBackend
from oarlock.llm.eval.registry import load_folder
from oarlock.llm.loading.load import build


def check(spec: str, *, api_key_env: str | None = None) -> None:
    """Complain of what shows before a model is opened.

    Args:
        spec, api_key_env: as of ``open_backend``.

    Raises:
        ValueError: it is no server's address, and no file or folder is there.
    """
    if _is_server(spec):
        _server(spec, api_key_env)
    else:
        _files(spec)


def open_backend(
    spec: str,
    *,
    weights: str | None = None,
    rows: int = 1,
    start: int | None = None,
    chat: bool = False,
    api_key_env: str | None = None,
) -> Backend:
    """Backend of ``URL#MODEL``, ``PATH`` or ``PATH,TOKENIZER``.

    Args:
        spec: what was typed.
        weights: format in the engine; None for plain passes.
        rows: texts a plain pass.
        start: id of the token that begins every text; None for the model's own.
        chat: ask a server's chat.
        api_key_env: environment variable that holds a server's key.

    Raises:
        ValueError: it is neither, or the files do not fit.
    """
    if _is_server(spec):
        url, name, key = _server(spec, api_key_env)
        return EndpointBackend(url, name, mode="chat" if chat else "completions", api_key=key)
    path, tokenizer_place = _files(spec)
    given = read_tokenizer(tokenizer_place) if tokenizer_place else None
    if weights is not None:
        return _engine(path, given, weights=weights, start=start)
    checkpoint = loading.load(path, float32=True)
    tokenizer = given or checkpoint.text.tokenizer
    if tokenizer is None:
        raise ValueError(f"{path} has no tokenizer: give it as PATH,TOKENIZER.")
    bos, ends = _specials(checkpoint.text, tokenizer)
    return LanguageModelBackend(
        build(checkpoint),
        tokenizer,
        name=path.stem,
        start=bos if start is None else start,
        end=ends[0] if ends else None,
        rows=rows,
    )


def _is_server(spec: str) -> bool:
    return re.match(r"https?://", spec) is not None


def _server(spec: str, api_key_env: str | None) -> tuple[str, str, str | None]:
    """Address, model and key."""
    url, _, name = spec.partition("#")
    if not name:
        raise ValueError(f"a server must be given as URL#MODEL, got {spec!r}.")
    if api_key_env is not None and api_key_env not in os.environ:
        raise ValueError(f"api_key_env names {api_key_env}, which is not set.")
    return url, name, None if api_key_env is None else os.environ[api_key_env]


def _files(spec: str) -> tuple[Path, str]:
    """The model's path, which is there, and where its tokenizer is; empty for the model's own."""
    place, _, tokenizer_place = spec.partition(",")
    path = Path(place)
    if not path.exists():
        remedy = "and nothing is downloaded"
        if fnmatch.filter(load_folder(), place):
            remedy = f"but tasks are called so: give them as --tasks {place!r}"
        raise ValueError(f"no file or folder {path} is there, {remedy}.")
    if tokenizer_place not in ("", "bytes") and not Path(tokenizer_place).exists():
        raise ValueError(f"no tokenizer {tokenizer_place} is there.")
    return path, tokenizer_place


def _engine(
    path: Path, given: tokenizers.Tokenizer | None, *, weights: str, start: int | None
) -> EngineBackend:
    llm = LLM(path, tokenizer=given, weights=weights)
    if llm.tokenizer is None:
        raise ValueError(f"{path} has no tokenizer: give it as PATH,TOKENIZER.")
    bos, _ = _specials(llm.text, llm.tokenizer)
    return EngineBackend(
        llm,
        llm.tokenizer,
        description={
            "model": f"{path.stem} ({weights})",
            "family": llm.opened.family,
            "weights": weights,
            "files": _hash(path),
            "tokenizer": type(llm.tokenizer).__name__,
        },
        max_length=llm.engine.max_length,
        start=bos if start is None else start,
    )


def _specials(
    text: loading.Text, tokenizer: tokenizers.Tokenizer
) -> tuple[int | None, tuple[int, ...]]:
    """The token that begins a text, where the model wants one, and those that end it."""
    if text.tokenizer is not None:
        return (text.bos if text.adds_bos else None), text.eos
    special = tokenizer.special_tokens
    return special.get("<s>"), (special["</s>"],) if "</s>" in special else ()


def _hash(path: Path) -> str:
    """Of a file, or of all files of a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.name.encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:16]


def file_name(model: str) -> str:
    """The model's name as the name of a file."""
    return re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model"
