"""Tokenizers of the SentencePiece BPE kind as GGUF stores them."""

import dataclasses
import re
from collections.abc import Sequence

import gguf
import numpy as np
from gguf.constants import TokenType

_BYTE = re.compile(rb"<0x[0-9A-F]{2}>")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Pieces and scores of a SentencePiece BPE model that spells unknown characters in bytes.

    Args:
        pieces: UTF-8 of each id, with plain spaces; bytes are written <0xHH>.
        scores: one a piece; of two possible unions the one of the higher score is made first.
        unknown, begin, end: ids of the control tokens.
        prefix_space: whether a space is put before a text.
        add_begin: whether programs put ``begin`` before a prompt.

    Raises:
        ValueError: lengths that differ, an id that is none, or a piece that is no UTF-8.
    """

    pieces: Sequence[bytes]
    scores: Sequence[float]
    unknown: int = 0
    begin: int = 1
    end: int = 2
    prefix_space: bool = True
    add_begin: bool = True

    def __post_init__(self):
        if len(self.pieces) != len(self.scores) or not len(self.pieces):
            found = f"{len(self.pieces)} and {len(self.scores)}"
            raise ValueError(f"pieces must have a score each, got {found}.")
        for name in ("unknown", "begin", "end"):
            if not 0 <= getattr(self, name) < len(self.pieces):
                raise ValueError(
                    f"{name} must be an id below {len(self.pieces)}, got {getattr(self, name)}."
                )
        for i, piece in enumerate(self.pieces):
            try:
                piece.decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"pieces[{i}] is no UTF-8: {piece!r}.") from error

    def describe(self, writer: gguf.GGUFWriter) -> None:
        """Put the tokenizer into a file."""
        kinds = [TokenType.BYTE if _BYTE.fullmatch(p) else TokenType.NORMAL for p in self.pieces]
        kinds[self.unknown] = TokenType.UNKNOWN
        kinds[self.begin] = kinds[self.end] = TokenType.CONTROL
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([piece.decode().replace(" ", "\u2581") for piece in self.pieces])
        writer.add_token_scores(np.asarray(self.scores, np.float32).tolist())
        writer.add_token_types([int(kind) for kind in kinds])
        writer.add_bos_token_id(self.begin)
        writer.add_eos_token_id(self.end)
        writer.add_unk_token_id(self.unknown)
        writer.add_add_bos_token(self.add_begin)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(self.prefix_space)
