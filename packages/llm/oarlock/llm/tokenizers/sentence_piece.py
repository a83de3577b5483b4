"""SentencePiece models through Google's library."""

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

import sentencepiece

from oarlock.llm.tokenizers.base import Tokenizer, read


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model: unigram or BPE on characters, a space written as U+2581.

    What is normalised (spaces, width of characters) is part of the model; one of ``train`` keeps
    the text as it is, and spells characters outside its vocabulary in bytes.

    Source: Kudo & Richardson, arXiv 1808.06226.

    Args:
        model: content of a ``.model`` file.

    Raises:
        ValueError: it is none, or truncated.
    """

    def __init__(self, model: bytes):
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            loaded = len(model) > 0 and self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise ValueError(
                f"model ({len(model)} bytes) is truncated or no SentencePiece model: {error}."
            ) from error
        if not loaded:
            raise ValueError(f"model ({len(model)} bytes) is no SentencePiece model.")
        unknown = self._processor.unk_id()
        if not 0 <= unknown < self._processor.GetPieceSize():
            raise ValueError(f"model must have a token for unknown text, but its id is {unknown}.")
        self.model = model
        # what the library makes of a text's beginning, and of a token that stands for no text it knows
        self.adds_space = "".join(self._processor.EncodeAsPieces("a")).startswith("\u2581")
        self._unknown = self._processor.DecodeIds([unknown]).encode()

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> Self:
        """Read a ``.model`` file; ValueError if it is truncated or another."""
        try:
            return cls(read(path))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int, model_type: str = "unigram") -> Self:
        """Learn a model from ``texts``, on one thread so that the same texts give the same model.

        Args:
            texts: documents; longer ones are cut at their line ends.
            vocab_size: ids at most, at least 260: 256 bytes, <unk>, <s>, </s> and one piece.
            model_type: "unigram" or "bpe".
        """
        if model_type not in ("unigram", "bpe"):
            raise ValueError(f"model_type must be 'unigram' or 'bpe', got {model_type!r}.")
        if vocab_size < 260:
            raise ValueError(f"vocab_size must be at least 260, got {vocab_size}.")
        if isinstance(texts, str):
            raise ValueError("texts must be several documents, got one str; write [text].")
        lines = [line for text in texts for line in text.split("\n") if line]
        written = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=written,
                vocab_size=vocab_size,
                model_type=model_type,
                hard_vocab_limit=False,
                byte_fallback=True,
                character_coverage=0.9995,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                add_dummy_prefix=False,
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"texts ({len(lines)} lines) do not give a model of vocab_size {vocab_size}: "
                f"{error}."
            ) from error
        return cls(written.getvalue())

    def save(self, path: str | os.PathLike) -> None:
        """Write the model; the file appears only when complete."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        try:
            partial.write_bytes(self.model)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @property
    def vocab_size(self) -> int:
        return self._processor.GetPieceSize()

    @property
    def special_tokens(self) -> Mapping[str, int]:
        ids = range(self.vocab_size)
        return {self._processor.IdToPiece(i): i for i in ids if self._processor.IsControl(i)}

    def _encode(self, text: str) -> list[int]:
        return self._processor.EncodeAsIds(text)

    def _decode(self, ids: list[int]) -> str:
        text = b"".join(map(self._bytes_of, ids))
        return (text.removeprefix(b" ") if self.adds_space else text).decode(errors="replace")

    def _bytes_of(self, token: int) -> bytes:
        processor = self._processor
        if processor.IsControl(token) or processor.IsUnused(token):
            return b""
        if processor.IsUnknown(token):
            return self._unknown
        piece = processor.IdToPiece(token)
        if processor.IsByte(token):
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode()
