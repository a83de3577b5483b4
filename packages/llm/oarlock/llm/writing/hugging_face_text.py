"""Tokenizer, special tokens, chat template and defaults as files of a Hugging Face folder."""

import json
import shutil
from pathlib import Path
from typing import Any

from oarlock.llm.loading import Checkpoint, Text
from oarlock.llm.loading.generation import HUGGING_FACE
from oarlock.llm.tokenizers import BPETokenizer, Llama2cTokenizer, SentencePieceTokenizer
from oarlock.llm.writing import pieces

#: Files that go along from one folder to another.
_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


def write(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy the files of a folder, or make them of what another format says.

    Raises:
        ValueError: transformers has no such tokenizer.
    """
    if checkpoint.source.is_dir():
        for name in _FILES:
            if (checkpoint.source / name).is_file():
                shutil.copyfile(checkpoint.source / name, folder / name)
        return
    _json(folder / "generation_config.json", _generation(checkpoint))
    _tokenizer(checkpoint.text, folder)


def check(text: Text) -> None:
    """Refuse a tokenizer that ``write`` cannot write."""
    tokenizer = text.tokenizer
    known = (BPETokenizer, SentencePieceTokenizer, Llama2cTokenizer)
    if tokenizer is not None and not isinstance(tokenizer, known):
        raise ValueError(
            "tokenizer must be BPE, SentencePiece's or llama2.c's for a Hugging Face folder, got "
            f"{type(tokenizer).__name__}."
        )
    if isinstance(tokenizer, Llama2cTokenizer):
        pieces.of_llama2c(tokenizer)


def _tokenizer(text: Text, folder: Path) -> None:
    tokenizer = text.tokenizer
    if tokenizer is None:
        return
    settings: dict[str, Any] = {"clean_up_tokenization_spaces": False}
    settings |= {name: spelt for name, spelt in sorted(text.template_tokens.items())}
    if text.chat_template is not None:
        settings["chat_template"] = text.chat_template
    if isinstance(tokenizer, BPETokenizer):
        begin = text.template_tokens.get("bos_token")
        first = (begin, text.bos) if text.adds_bos and begin and text.bos is not None else None
        described = tokenizer.description()
        if first is not None:
            described["post_processor"] = _begins_with(*first)
        _json(folder / "tokenizer.json", described)
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    else:
        if isinstance(tokenizer, Llama2cTokenizer):
            SentencePieceTokenizer(pieces.of_llama2c(tokenizer).model()).save(
                folder / "tokenizer.model"
            )
        else:
            assert isinstance(tokenizer, SentencePieceTokenizer)
            tokenizer.save(folder / "tokenizer.model")
        # What transformers calls "legacy" is SentencePiece's own way.
        settings |= {
            "tokenizer_class": "LlamaTokenizer",
            "legacy": True,
            "add_bos_token": text.adds_bos,
            "add_eos_token": False,
            "add_prefix_space": tokenizer.adds_space,
        }
    _json(folder / "tokenizer_config.json", settings)


def _begins_with(token: str, id: int) -> dict[str, Any]:
    """A post-processor that puts a token before texts."""
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            special,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 0}},
        ],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    }


def _generation(checkpoint: Checkpoint) -> dict[str, Any]:
    text, found = checkpoint.text, dict(checkpoint.generation)
    fields: dict[str, Any] = {}
    if text.bos is not None:
        fields["bos_token_id"] = text.bos
    if text.eos:
        fields["eos_token_id"] = list(text.eos) if len(text.eos) > 1 else text.eos[0]
    if "temperature" in found:
        fields["do_sample"] = found["temperature"] > 0
        if not fields["do_sample"]:
            del found["temperature"]
    fields |= {HUGGING_FACE[name]: value for name, value in found.items()}
    return fields


def _json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
