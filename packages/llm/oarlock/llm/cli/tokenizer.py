"""Tokenizers from what a user types."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from oarlock.llm.tokenizers import Tokenizer


def read_tokenizer(place: str) -> "Tokenizer":
    """The tokenizer of a file, by the end of its name, or of bytes.

    Args:
        place: ``bytes``, a llama2.c ``.bin``, a SentencePiece ``.model``, a ``tokenizer.json``, an RWKV ``.txt``.

    Raises:
        ValueError: it is none of these, or the file is broken.
        OSError: the file cannot be read.
    """
    from oarlock.llm import tokenizers

    if place == "bytes":
        return tokenizers.ByteTokenizer()
    suffixes = {
        ".bin": tokenizers.Llama2cTokenizer.from_file,
        ".model": tokenizers.SentencePieceTokenizer.from_file,
        ".json": tokenizers.BPETokenizer.from_file,
        ".txt": tokenizers.RWKVWorldTokenizer.from_file,
    }
    suffix = Path(place).suffix
    if suffix not in suffixes:
        raise ValueError(
            f"tokenizer must be bytes or end with {', '.join(suffixes)}, got {place!r}."
        )
    return suffixes[suffix](place)
