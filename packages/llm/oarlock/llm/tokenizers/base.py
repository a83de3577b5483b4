"""The interface of all tokenizers."""

import abc
import functools
import gzip
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np


class Tokenizer(abc.ABC):
    """Turns text into token ids and back.

    Text is text: the spelling of a special token in it is encoded like any other, and a special
    token is added by its id, ``special_tokens[name]``. Only ``encode(text, special=True)`` turns
    spellings into special tokens: for rendered chat templates, never for what a user wrote. Ids
    that no text gives may not be whole UTF-8; ``decode`` shows the broken part as U+FFFD.
    """

    #: Whether the space that begins a text is put there by ``encode`` and taken away by ``decode``.
    adds_space = False

    @property
    @abc.abstractmethod
    def vocab_size(self) -> int:
        """Number of ids: they are 0 .. vocab_size - 1."""

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Ids of the tokens that stand for no text, by name."""
        return {}

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of ``text``; none for an empty text.

        Args:
            text: any text.
            special: take spellings of special tokens for these tokens.
        """
        if not isinstance(text, str):
            raise ValueError(f"text must be a str, got {type(text).__name__}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text must be Unicode without lone surrogates: {error}.") from error
        return self._encode_special(text) if special else self._encode(text)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of ``ids``; ValueError for an id that is none of this tokenizer's."""
        row = self._check(ids)
        return self._decode(row) if row else ""

    def token_bytes(self, token: int) -> bytes:
        """What the id adds to a text, in UTF-8: none for a special token, perhaps half a character.

        At the very beginning of a text ``decode`` drops a space where ``adds_space`` says so.
        """
        return self._bytes_of(self._check([token])[0])

    def _check(self, ids: Sequence[int] | np.ndarray) -> list[int]:
        row = np.asarray(ids)
        if row.size == 0:
            return []
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
        return row.tolist()

    def _encode_special(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in self._special_pattern.split(text) if self._special_pattern else [text]:
            found = self.special_tokens.get(piece)
            ids += self._encode(piece) if found is None else [found]
        return ids

    @functools.cached_property
    def _special_pattern(self) -> re.Pattern[str] | None:
        names = sorted(self.special_tokens, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None

    @abc.abstractmethod
    def _encode(self, text: str) -> list[int]: ...

    @abc.abstractmethod
    def _bytes_of(self, token: int) -> bytes: ...

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
