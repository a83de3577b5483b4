"""The interface of all tokenizers."""

import abc
import gzip
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


class Tokenizer(abc.ABC):
    """Turns text into token ids and back.

    Text is always text: the spelling of a special token in it is encoded like any other, and a
    special token is added by its id, ``special_tokens[name]``. Ids that no text gives may not be
    whole UTF-8; ``decode`` shows the broken part as U+FFFD.
    """

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """Number of ids: they are 0 .. vocab_size - 1."""

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Ids of the tokens that stand for no text, by name."""
        return {}

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``; none for an empty text."""
        if not isinstance(text, str):
            raise ValueError(f"text must be a str, got {type(text).__name__}.")
        return self._encode(text)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of ``ids``; ValueError for an id that is none of this tokenizer's."""
        row = np.asarray(ids)
        if row.size == 0:
            return ""
        if row.ndim != 1 or not np.issubdtype(row.dtype, np.integer):
            raise ValueError(
                f"ids must be integers in one row, got {row.dtype} of shape {row.shape}."
            )
        bad = np.flatnonzero((row < 0) | (row >= self.vocab_size))
        if len(bad):
            raise ValueError(
                f"ids must be in 0..{self.vocab_size - 1}, got {row[bad[0]]} "
                f"at position {bad[0]}."
            )
        return self._decode(row.tolist())

    @abc.abstractmethod
    def _encode(self, text: str) -> list[int]: ...

    @abc.abstractmethod
    def _decode(self, ids: list[int]) -> str: ...


def read(path: str | os.PathLike) -> bytes:
    """Content of a file, unpacked if its name ends with ``.gz``; ValueError if that fails."""
    path = Path(path)
    content = path.read_bytes()
    if path.suffix != ".gz":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} ({len(content)} bytes) is truncated or no gzip file: {error}."
        ) from error
