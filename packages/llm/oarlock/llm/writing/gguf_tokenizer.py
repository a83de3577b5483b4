"""Tokenizers as GGUF's metadata; ``tokenizers.gguf`` and ``loading.gguf`` read them."""

import dataclasses
from typing import Any

from oarlock.llm.loading import Text
from oarlock.llm.tokenizers import BPETokenizer, Llama2cTokenizer, SentencePieceTokenizer
from oarlock.llm.tokenizers.gguf import (
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    WHOLE_WORDS,
    WORDS,
)
from oarlock.llm.writing import pieces
from oarlock.llm.writing.pieces import Pieces

_PREFIX = "tokenizer.ggml."
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
#: Spellings of the same expressions elsewhere.
_SAME = {r" ?[^(\s|[.,!?…。，、।۔،])]+": "bloom"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A tokenizer in GGUF's terms.

    Args:
        metadata: values by key.
        notes: what has no place there and is left out.
    """

    metadata: dict[str, Any]
    notes: tuple[str, ...] = ()


def describe(
    text: Text, vocab_size: int, *, architecture: str, pre: str | None = None
) -> Described:
    """A model's text in GGUF's terms.

    Args:
        text: of the model.
        vocab_size: rows of the model's embedding.
        architecture: of the file.
        pre: name of the expression that cuts texts into words; None to find it.

    Raises:
        ValueError: the tokenizer cannot be written; says why.
    """
    tokenizer = text.tokenizer
    if pre is not None and pre not in WORDS:
        raise ValueError(f"pre must be one of {', '.join(WORDS)}, got {pre!r}.")
    if tokenizer is None:
        lost = ("which tokens begin and end texts, as there is no tokenizer",)
        return Described(metadata={f"{_PREFIX}model": "none"}, notes=lost if text.eos else ())
    notes: tuple[str, ...] = ()
    if isinstance(tokenizer, BPETokenizer):
        described = tokenizer.description()
        if (described["decoder"] or {}).get("type") == "ByteLevel":
            metadata, notes = _byte_level(described, vocab_size, architecture, pre)
        else:
            metadata = _scored(pieces.of_merges(tokenizer), vocab_size)
    elif isinstance(tokenizer, SentencePieceTokenizer):
        metadata = _scored(pieces.of_sentence_piece(tokenizer), vocab_size)
    elif isinstance(tokenizer, Llama2cTokenizer):
        metadata = _scored(pieces.of_llama2c(tokenizer), vocab_size)
    else:
        raise ValueError(
            f"tokenizer must be BPE, SentencePiece's or llama2.c's for GGUF, got {type(tokenizer).__name__}."
        )
    special, left = _special(text)
    return Described(
        metadata={_PREFIX + key: value for key, value in metadata.items()} | special,
        notes=notes + left,
    )


def _special(text: Text) -> tuple[dict[str, Any], tuple[str, ...]]:
    assert text.tokenizer is not None
    known = text.tokenizer.special_tokens
    named = {name: known.get(spelt) for name, spelt in text.template_tokens.items()}
    ends = list(text.eos)
    if named.get("eos_token") in ends:  # the one that templates name comes first
        ends.remove(named["eos_token"])  # type: ignore[arg-type]
        ends.insert(0, named["eos_token"])  # type: ignore[arg-type]
    found = dict(zip(_ENDS, ends))
    if text.bos is not None:
        found["bos_token_id"] = text.bos
    for ours, theirs in (("unk_token", "unknown_token_id"), ("pad_token", "padding_token_id")):
        token = named.get(ours)
        if token is not None:
            found[theirs] = token
    metadata: dict[str, Any] = {_PREFIX + name: token for name, token in found.items()}
    metadata[f"{_PREFIX}add_bos_token"] = text.adds_bos
    metadata[f"{_PREFIX}add_eos_token"] = False
    if text.chat_template is not None:
        metadata["tokenizer.chat_template"] = text.chat_template
    left = tuple(set(text.eos) - set(found.values()))
    notes = (f"that the tokens {', '.join(map(str, left))} end texts",) if left else ()
    return metadata, notes


def _filled(texts: list[str], types: list[int], vocab_size: int) -> tuple[list[str], list[int]]:
    """A token for every row of the embedding."""
    if len(texts) > vocab_size:
        raise ValueError(
            f"tokenizer must have at most the model's {vocab_size} tokens, got {len(texts)}."
        )
    more = range(len(texts), vocab_size)
    return texts + [f"[PAD{i}]" for i in more], types + [UNUSED] * len(more)


def _scored(found: Pieces, vocab_size: int) -> dict[str, Any]:
    texts, types = _filled(found.texts, found.types, vocab_size)
    return {
        "model": "llama",
        "pre": "default",
        "tokens": texts,
        "scores": found.scores + [-1000.0] * (len(texts) - len(found.scores)),
        "token_type": types,
        "unknown_token_id": found.unknown,
        "add_space_prefix": found.adds_space,
    }


def _byte_level(
    described: dict[str, Any], vocab_size: int, architecture: str, pre: str | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    model = described["model"]
    if model.get("type") != "BPE":
        raise ValueError(f"tokenizer must be BPE for GGUF, got {model.get('type')}.")
    pre = _pre(described, architecture) if pre is None else pre
    texts = pieces.texts_by_id(described)
    types = [NORMAL] * len(texts)
    for one in described["added_tokens"]:
        types[one["id"]] = CONTROL if one["special"] else USER_DEFINED
    texts, types = _filled(texts, types, vocab_size)
    merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
    if any(one.count(" ") != 1 for one in merges):
        raise ValueError("tokenizer must have merges of tokens without spaces for GGUF.")
    metadata = {
        "model": "gpt2",
        "pre": pre,
        "tokens": texts,
        "token_type": types,
        "merges": merges,
    }
    normalizer = (described["normalizer"] or {}).get("type")
    if normalizer is None:
        return metadata, ()
    return metadata, (f"the tokenizer's normaliser, {normalizer}",)


def _pre(described: dict[str, Any], architecture: str) -> str:
    """The name of the expression that cuts texts into words."""
    steps = described["pre_tokenizer"] or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    patterns = [one["pattern"] for one in steps if one.get("type") == "Split"]
    whole = bool(described["model"].get("ignore_merges"))
    if not patterns and [one.get("use_regex", True) for one in steps] == [True]:
        return "gpt-2"
    if len(patterns) == 1 and "Regex" in patterns[0] and len(steps) == 2:
        expression = patterns[0]["Regex"]
        if expression in _SAME:
            return _SAME[expression]
        for name, known in WORDS.items():
            three_digits = WORDS["llama-bpe"] == known
            fits = whole == (name in WHOLE_WORDS)
            if known == expression and fits and (not three_digits or whole or architecture == "chatglm"):  # fmt: skip
                return name
    raise ValueError(
        "tokenizer cuts texts into words by an expression that has no name in GGUF files: say by pre which "
        f"of {', '.join(WORDS)} is meant."
    )
