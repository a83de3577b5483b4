"""The text of a recipe as tokens."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from oarlock.accept import data
from oarlock.accept.prepare.recipes import Recipe

VALIDATION_BATCHES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Tokens to train on and to validate with; `characters` of validation text per token."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    vocab_size: int
    characters_per_token: float


def byte_level_bpe(texts: list[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokeniser trained on `texts`: it encodes any text, and decodes it back."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _encode(tokenizer: Tokenizer | None, texts: list[str]) -> NDArray[np.int64]:
    """All texts in one row, an empty line between two."""
    if tokenizer is None:
        return np.frombuffer("\n\n".join(texts).encode(), np.uint8).astype(np.int64)
    rows = [one.ids for one in tokenizer.encode_batch_fast([f"{text}\n\n" for text in texts])]
    return np.concatenate([np.asarray(row, np.int64) for row in rows])


def load(recipe: Recipe, tokenizer_file: Path) -> Corpus:
    """The tokens of a recipe; trains and writes the BPE tokeniser unless it is there.

    Raises:
        DataMissing, DataCorrupt: see `oarlock.accept.data`.
        ValueError: the text is too short for the recipe.
    """
    texts = data.documents(recipe.data, part=recipe.part)
    if len(texts) == 1:  # one long text: cut it
        cut = int(len(texts[0]) * (1 - recipe.held_out))
        train, held_out = [texts[0][:cut]], [texts[0][cut:]]
    else:
        cut = int(len(texts) * (1 - recipe.held_out))
        train, held_out = texts[:cut], texts[cut:]
    tokenizer = None
    if recipe.tokenizer == "bpe":
        if not tokenizer_file.exists():
            part = tokenizer_file.with_name(f".{tokenizer_file.name}")
            byte_level_bpe(train, recipe.vocab_size).save(str(part))
            part.replace(tokenizer_file)
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    rows = {"train": _encode(tokenizer, train), "held_out": _encode(tokenizer, held_out)}
    for name, row in rows.items():
        if len(row) <= recipe.context:
            raise ValueError(
                f"{recipe.data}: {name} text has {len(row)} tokens,"
                f" context {recipe.context} needs more"
            )
    return Corpus(
        **rows,
        vocab_size=recipe.vocab_size if tokenizer is None else tokenizer.get_vocab_size(),
        characters_per_token=sum(map(len, held_out)) / len(rows["held_out"]),
    )


def batch(row: NDArray[np.int64], recipe: Recipe, step: int) -> tuple[NDArray, NDArray]:
    """Tokens and next tokens [batch, context] of a step; they depend on seed and step only."""
    starts = np.random.default_rng([recipe.seed, step]).integers(
        0, len(row) - recipe.context, recipe.batch
    )
    windows = row[starts[:, None] + np.arange(recipe.context + 1)]
    return windows[:, :-1], windows[:, 1:]


def validation(row: NDArray[np.int64], recipe: Recipe) -> list[tuple[NDArray, NDArray]]:
    """The same batches every time, spread evenly over the held-out text."""
    count = VALIDATION_BATCHES * recipe.batch
    starts = np.linspace(0, len(row) - recipe.context - 1, count).astype(np.int64)
    windows = row[starts[:, None] + np.arange(recipe.context + 1)]
    parts = np.split(windows, VALIDATION_BATCHES)
    return [(part[:, :-1], part[:, 1:]) for part in parts]
