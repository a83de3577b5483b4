"""Byte-pair encoding through the ``tokenizers`` library."""

import functools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from oarlock.llm.tokenizers import pieces
from oarlock.llm.tokenizers.base import Tokenizer, read


class BPETokenizer(Tokenizer):
    """A tokenizer of the ``tokenizers`` library, most often byte-level BPE as in GPT-2.

    Byte-level BPE splits text into words by a regular expression, spells each in 256 characters
    that stand for bytes, and joins neighbours in the order in which training found the pairs
    frequent. Any text has an encoding and comes back exactly.

    Source: Sennrich et al., arXiv 1508.07909; byte level: Radford et al. 2019 (GPT-2).
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        tokenizer.encode_special_tokens = True  # their spelling in a text is text
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        ids = tokenizer.get_vocab(with_added_tokens=True).values()
        self._vocab_size = max(ids, default=-1) + 1
        self._added = {
            i: token.content for i, token in tokenizer.get_added_tokens_decoder().items()
        }
        decoder = None if tokenizer.decoder is None else tokenizer.decoder.__getstate__()
        self._spell, self.adds_space = pieces.spelling(
            None if decoder is None else json.loads(decoder)
        )

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> Self:
        """Read a ``tokenizer.json`` (or ``.json.gz``); ValueError if it is truncated or another."""
        content = read(path)
        try:
            return cls(tokenizers.Tokenizer.from_buffer(content))
        # the library raises plain ValueError or Exception for any broken file
        except Exception as error:
            raise ValueError(
                f"{path} ({len(content)} bytes) is truncated or no tokenizer.json: {error}."
            ) from error

    @classmethod
    def from_gpt2_files(
        cls,
        vocab_path: str | os.PathLike,
        merges_path: str | os.PathLike,
        *,
        special_tokens: Sequence[str] = ("<|endoftext|>",),
    ) -> Self:
        """Read GPT-2's pair of files, ``encoder.json`` and ``vocab.bpe``.

        Args:
            vocab_path: JSON object of token to id.
            merges_path: lines of two tokens each, the earlier the more frequent.
            special_tokens: tokens of the vocabulary that stand for no text.

        Raises:
            ValueError: a file is truncated, or the two do not belong together.
        """
        for path in (vocab_path, merges_path):
            Path(path).stat()  # a missing file is named as such
        try:
            model = models.BPE.from_file(str(vocab_path), str(merges_path))
        except Exception as error:  # as above
            raise ValueError(
                f"{vocab_path} and {merges_path} are no vocabulary and its merges, "
                f"or truncated: {error}."
            ) from error
        tokenizer = _byte_level(model)
        missing = [token for token in special_tokens if tokenizer.token_to_id(token) is None]
        if missing:
            raise ValueError(f"special_tokens must be in {vocab_path}, but {missing} are not.")
        tokenizer.add_special_tokens(list(special_tokens))
        return cls(tokenizer)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        vocab_size: int,
        special_tokens: Sequence[str] = (),
        exact: bool = True,
    ) -> Self:
        """Learn byte-level BPE from ``texts``; the same texts give the same tokenizer.

        Args:
            texts: documents; a pair is never joined across two of them.
            vocab_size: number of ids. The special tokens come first, then the 256 bytes.
            special_tokens: names of tokens that stand for no text.
            exact: False takes fewer ids where the texts have no more pairs to join.

        Raises:
            ValueError: an argument is out of range, or the texts give fewer ids.
        """
        least = 256 + len(special_tokens)
        if vocab_size < least:
            raise ValueError(
                f"vocab_size must be at least {least} (256 bytes and the special tokens), "
                f"got {vocab_size}."
            )
        if isinstance(texts, str):
            raise ValueError("texts must be several documents, got one str; write [text].")
        tokenizer = _byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(special_tokens),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        found = tokenizer.get_vocab_size()
        if exact and found < vocab_size:
            raise ValueError(
                f"vocab_size must be at most {found}, all that the texts give, got {vocab_size}: "
                "choose a smaller one, give more text, or say exact=False."
            )
        return cls(tokenizer)

    def save(self, path: str | os.PathLike) -> None:
        """Write ``tokenizer.json``; the file appears only when complete."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        try:
            self._tokenizer.save(str(partial))
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @functools.cached_property
    def special_tokens(self) -> Mapping[str, int]:  # type: ignore[override]  # computed once
        added = self._tokenizer.get_added_tokens_decoder()
        return {token.content: i for i, token in added.items() if token.special}

    @functools.cached_property
    def _special_ids(self) -> frozenset[int]:
        return frozenset(self.special_tokens.values())

    def begins_with(self) -> list[int]:
        """Ids that the file's own post-processor puts before a text, such as <s>; for loaders."""
        return self._tokenizer.encode("", add_special_tokens=True).ids

    def description(self) -> dict[str, Any]:
        """What the ``tokenizer.json`` says, for writers of other formats."""
        return json.loads(self._tokenizer.to_str())  # type: ignore[no-any-return]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts, encoded in parallel."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _encode_special(self, text: str) -> list[int]:
        return self._knowing.encode(text, add_special_tokens=False).ids

    @functools.cached_property
    def _knowing(self) -> tokenizers.Tokenizer:
        """A copy that recognises special tokens: the switch is part of the library's object."""
        copy = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        copy.encode_special_tokens = False
        return copy

    def _decode(self, ids: list[int]) -> str:
        text = b"".join(map(self._spelling, ids))
        return (text.removeprefix(b" ") if self.adds_space else text).decode(errors="replace")

    def _bytes_of(self, token: int) -> bytes:
        return b"" if token in self._special_ids else self._spelling(token)

    def _spelling(self, token: int) -> bytes:
        added = self._added.get(token)
        if added is not None:
            return added.encode()
        piece = self._tokenizer.id_to_token(token)
        return b"" if piece is None else self._spell(piece)


def _byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
