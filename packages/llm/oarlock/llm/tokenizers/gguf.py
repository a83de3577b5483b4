"""Tokenizers described by the metadata of GGUF files.

Two kinds: "llama", a SentencePiece BPE model taken apart into pieces, scores and types, which is put
together again for Google's library; and "gpt2", byte-level BPE, whose regular expression has a name
only.

Source: github.com/ggml-org/llama.cpp, ``src/llama-vocab.cpp`` (which expression a name means).
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from oarlock.llm.tokenizers.base import Tokenizer
from oarlock.llm.tokenizers.bpe import BPETokenizer
from oarlock.llm.tokenizers.sentence_piece import SentencePieceTokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # as in SentencePiece's models
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_THREE_DIGITS = rf"{_ENDINGS}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"
_ONE_DIGIT = rf"{_ENDINGS}|{_LETTERS}|\p{{N}}|{_REST}"
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
#: How text is cut into words; None for GPT-2's own expression.
WORDS: dict[str, str | None] = {
    "gpt-2": None,
    "gpt2": None,
    "llama-bpe": _THREE_DIGITS,
    "llama3": _THREE_DIGITS,
    "llama-v3": _THREE_DIGITS,
    "chatglm-bpe": _THREE_DIGITS,
    "glm4": _THREE_DIGITS,
    "qwen2": _ONE_DIGIT,
    "deepseek-r1-qwen": _ONE_DIGIT,
    "bloom": _BLOOM,
}
#: Those that take a whole word of the vocabulary before any merge.
WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3")


def from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a file's metadata.

    Args:
        metadata: values by key, those of ``tokenizer.ggml.`` among them.

    Raises:
        ValueError: a key is missing, two do not fit each other, or the kind is not read here.
    """
    kind = _get(metadata, "model", str)
    if kind not in ("llama", "gpt2"):
        raise ValueError(f"tokenizer.ggml.model must be 'llama' or 'gpt2', got {kind!r}.")
    tokens = _get(metadata, "tokens", Sequence)
    if not tokens or not all(isinstance(token, str) for token in tokens):
        raise ValueError("tokenizer.ggml.tokens must be texts.")
    types = _numbers(metadata, "token_type", [NORMAL] * len(tokens))
    if len(types) != len(tokens) or not all(NORMAL <= one <= BYTE for one in types):
        raise ValueError(
            f"tokenizer.ggml.token_type must have a number in {NORMAL}..{BYTE} for each of "
            f"{len(tokens)} tokens, got {len(types)}."
        )
    if kind == "llama":
        return _sentence_piece(metadata, tokens, types)
    return _byte_level(metadata, tokens, types)


def _get(metadata: Mapping[str, Any], key: str, kind: Any) -> Any:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, kind):
        raise ValueError(f"tokenizer.ggml.{key} is missing or of another type: {type(value)}.")
    return value


def _numbers(metadata: Mapping[str, Any], key: str, default: list[int]) -> list[Any]:
    values = metadata.get(f"tokenizer.ggml.{key}", default)
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise ValueError(f"tokenizer.ggml.{key} must be numbers, got {type(values).__name__}.")
    return values


def _sentence_piece(
    metadata: Mapping[str, Any], tokens: Sequence[str], types: list[int]
) -> SentencePieceTokenizer:
    scores = _numbers(metadata, "scores", [])
    if len(scores) != len(tokens):
        raise ValueError(
            f"tokenizer.ggml.scores must be one for each of {len(tokens)} tokens, got {len(scores)}."
        )
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    if not isinstance(unknown, int) or not 0 <= unknown < len(tokens):
        raise ValueError(f"tokenizer.ggml.unknown_token_id must be a token, got {unknown!r}.")
    # converters mark it as a control token at times, and the library wants exactly one
    types = [CONTROL if one == UNKNOWN else one for one in types]
    types[unknown] = UNKNOWN
    space = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    return SentencePieceTokenizer(sentence_piece_model(tokens, scores, types, adds_space=space))


def sentence_piece_model(
    pieces: Sequence[str], scores: Sequence[float], types: Sequence[int], *, adds_space: bool
) -> bytes:
    """A SentencePiece BPE model of given pieces, in the wire format of its protocol buffer.

    Source: github.com/google/sentencepiece, ``sentencepiece_model.proto``.
    """
    out = [
        _field(1, _field(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + _field(3, kind))
        for piece, score, kind in zip(pieces, scores, types)
    ]
    trainer = _field(3, 2) + _field(35, int(BYTE in types))  # BPE; unknown characters as bytes
    normalizer = _field(1, b"identity") + _field(3, int(adds_space)) + _field(4, 0) + _field(5, 1)
    return b"".join([*out, _field(2, trainer), _field(3, normalizer)])


def _field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer: an integer, or bytes after their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _byte_level(
    metadata: Mapping[str, Any], tokens: Sequence[str], types: list[int]
) -> BPETokenizer:
    name = metadata.get("tokenizer.ggml.pre", "gpt-2")
    if not isinstance(name, str) or name not in WORDS:
        raise ValueError(
            f"tokenizer.ggml.pre must be one of {', '.join(WORDS)}, got {name!r}: which expression "
            "it means is not known here."
        )
    vocabulary = {token: i for i, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise ValueError(
            f"tokenizer.ggml.tokens must be different, got {len(tokens)} of which "
            f"{len(vocabulary)} are."
        )
    halves = [str(merge).partition(" ") for merge in _get(metadata, "merges", Sequence)]
    merges = [(first, second) for first, space, second in halves if space]
    if len(merges) != len(halves):
        raise ValueError("tokenizer.ggml.merges must be two tokens each, with a space between.")
    try:
        tokenizer = tokenizers.Tokenizer(
            models.BPE(vocabulary, merges, ignore_merges=name in WHOLE_WORDS)
        )
    except Exception as error:  # the library raises no other class
        raise ValueError(
            f"tokenizer.ggml.merges do not fit tokenizer.ggml.tokens: {error}."
        ) from error
    pattern = WORDS[name]
    spelt = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern is None:
        tokenizer.pre_tokenizer = spelt
    else:
        split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, spelt])
    tokenizer.decoder = decoders.ByteLevel()
    for kind, special in ((CONTROL, True), (USER_DEFINED, False)):
        added = [
            AddedToken(token, special=special, normalized=False)
            for token, one in zip(tokens, types)
            if one == kind and token
        ]
        if special:
            tokenizer.add_special_tokens(added)
        else:
            tokenizer.add_tokens(added)
    return BPETokenizer(tokenizer)
