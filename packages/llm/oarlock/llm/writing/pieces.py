"""Pieces, scores and types of SentencePiece-like tokenizers, as GGUF files have them.

- A SentencePiece BPE model holds them in its protocol buffer.
- A ``tokenizer.json`` that was made of one has merges in the order of the scores: a piece's score is minus the number
  of the first merge that makes it.
- llama2.c's files hold pieces and scores.

Source: github.com/google/sentencepiece, ``sentencepiece_model.proto``.
"""

import dataclasses
import struct
from collections.abc import Iterator
from typing import Any

from oarlock.llm.tokenizers import BPETokenizer, Llama2cTokenizer, SentencePieceTokenizer
from oarlock.llm.tokenizers.gguf import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    sentence_piece_model,
)
from oarlock.llm.tokenizers.pieces import SPACE

_BPE = 2  # the number of this kind of model
_LOWEST = -1e9  # of pieces that no merge makes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """A vocabulary whose neighbours are joined by the scores of what they become.

    Args:
        texts: of each id; a space is U+2581, bytes are <0xHH>.
        scores: one each.
        types: one each, as in SentencePiece's models.
        adds_space: a space is put before a text.
        unknown: id of unknown text.
    """

    texts: list[str]
    scores: list[float]
    types: list[int]
    adds_space: bool
    unknown: int

    def model(self) -> bytes:
        """A SentencePiece model of them."""
        return sentence_piece_model(self.texts, self.scores, self.types, adds_space=self.adds_space)


def of_sentence_piece(tokenizer: SentencePieceTokenizer) -> Pieces:
    """Of a SentencePiece model.

    Raises:
        ValueError: it is no BPE model, or changes texts before it encodes them.
    """
    texts, scores, types = [], [], []
    kind, adds_space, changes = 1, True, False
    whitespace = True
    for number, value in _fields(tokenizer.model):
        if number == 1:
            piece = dict(_fields(value))
            texts.append(bytes(piece.get(1, b"")).decode())
            scores.append(struct.unpack("<f", piece.get(2, b"\0\0\0\0"))[0])
            types.append(piece.get(3, NORMAL))
        elif number == 2:
            kind = dict(_fields(value)).get(3, 1)
        elif number == 3:
            normalizer = dict(_fields(value))
            changes = bool(normalizer.get(2, b""))
            adds_space = bool(normalizer.get(3, 1))
            whitespace = bool(normalizer.get(4, 1))
    if kind != _BPE or changes or whitespace:
        what = "is no BPE model" if kind != _BPE else "changes texts before it encodes them"
        raise ValueError(f"tokenizer {what}, which GGUF files have no place for.")
    return Pieces(
        texts=texts,
        scores=scores,
        types=types,
        adds_space=adds_space,
        unknown=types.index(UNKNOWN),
    )


def of_llama2c(tokenizer: Llama2cTokenizer) -> Pieces:
    """Of llama2.c's files.

    Raises:
        ValueError: a piece is no text.
    """
    texts = ["<unk>", "<s>", "</s>"]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256
    for number, piece in enumerate(tokenizer.pieces[len(texts) :], len(texts)):
        try:
            texts.append(piece.decode().replace(" ", SPACE))
        except UnicodeDecodeError as error:
            raise ValueError(f"tokenizer: piece {number}, {piece!r}, is no UTF-8.") from error
    types += [NORMAL] * (len(texts) - len(types))
    return Pieces(
        texts=texts, scores=list(tokenizer.scores), types=types, adds_space=True, unknown=0
    )


def of_merges(tokenizer: BPETokenizer) -> Pieces:
    """Of a ``tokenizer.json`` that was made of a SentencePiece model.

    Raises:
        ValueError: it was not.
    """
    described = tokenizer.description()
    model = described["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise ValueError(
            "tokenizer must be byte-level BPE or made of a SentencePiece model for GGUF."
        )
    texts = texts_by_id(described)
    order: dict[str, int] = {}
    for number, merge in enumerate(model["merges"]):
        order.setdefault("".join(merge if isinstance(merge, list) else merge.split(" ")), number)
    added = {one["id"]: one["special"] for one in described["added_tokens"]}
    unknown = model["vocab"].get(model.get("unk_token"), 0)
    types = []
    for i, text in enumerate(texts):
        if i == unknown:
            types.append(UNKNOWN)
        elif i in added:
            types.append(CONTROL if added[i] else USER_DEFINED)
        else:
            types.append(BYTE if len(text) == 6 and text.startswith("<0x") else NORMAL)
    scores = [-float(order[text]) if text in order else _LOWEST for text in texts]
    return Pieces(
        texts=texts,
        scores=scores,
        types=types,
        adds_space=tokenizer.adds_space,
        unknown=unknown,
    )


def texts_by_id(described: dict[str, Any]) -> list[str]:
    """Tokens of a ``tokenizer.json``, added ones among them.

    Raises:
        ValueError: an id has no token.
    """
    tokens = {i: text for text, i in described["model"]["vocab"].items()}
    tokens |= {one["id"]: one["content"] for one in described["added_tokens"]}
    missing = [i for i in range(max(tokens, default=-1) + 1) if i not in tokens]
    if missing:
        raise ValueError(f"tokenizer must have a token for every id, but {missing[0]} has none.")
    return [tokens[i] for i in range(len(tokens))]


def _fields(content: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protocol buffer: integers, and the bytes of everything else."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = content[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(content):
        key = varint()
        number, wire = key >> 3, key & 7
        if wire == 0:
            yield number, varint()
            continue
        size = {1: 8, 5: 4}.get(wire)
        length = varint() if size is None else size
        yield number, content[at : at + length]
        at += length
