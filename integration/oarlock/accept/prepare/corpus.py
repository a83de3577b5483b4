"""The text of a recipe as tokens."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from numpy.typing import NDArray

from oarlock.accept import data
from oarlock.accept.prepare.recipes import Recipe
from oarlock.llm.data import BatchSampler
from oarlock.llm.tokenizers import BPETokenizer, ByteTokenizer, Tokenizer

VALIDATION_BATCHES = 8
TOKENIZER_CHARACTERS = 1_000_000  #: about as many train a BPE tokeniser; all poems take a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Tokens to train on and to validate with; `characters` of validation text per token."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    vocab_size: int
    characters_per_token: float


def tokenizer(recipe: Recipe, file: Path, texts: list[str]) -> Tokenizer:
    """The tokeniser of a recipe: bytes, or BPE read from `file` or trained on `texts` into it."""
    if recipe.tokenizer == "bytes":
        return ByteTokenizer()
    if not file.exists():
        every = max(1, sum(map(len, texts)) // TOKENIZER_CHARACTERS)
        made = BPETokenizer.train(texts[::every], vocab_size=recipe.vocab_size, exact=False)
        made.save(file)
    return BPETokenizer.from_file(file)


def _encode(tokenizer: Tokenizer, texts: list[str]) -> NDArray[np.int64]:
    """All texts in one row, an empty line between two."""
    if isinstance(tokenizer, BPETokenizer):
        rows = tokenizer.encode_batch([f"{text}\n\n" for text in texts])
        return np.concatenate([np.asarray(row, np.int64) for row in rows])
    return np.asarray(tokenizer.encode("\n\n".join(texts)), np.int64)


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
    made = tokenizer(recipe, tokenizer_file, train)
    rows = {"train": _encode(made, train), "held_out": _encode(made, held_out)}
    for name, row in rows.items():
        if len(row) <= recipe.context:
            raise ValueError(
                f"{recipe.data}: {name} text has {len(row)} tokens,"
                f" context {recipe.context} needs more"
            )
    return Corpus(
        **rows,
        vocab_size=made.vocab_size,
        characters_per_token=sum(map(len, held_out)) / len(rows["held_out"]),
    )


def batches(row: NDArray[np.int64], recipe: Recipe, *, step: int) -> BatchSampler:
    """The batches from `step` on; each depends on the recipe's seed and its step only."""
    sampler = BatchSampler(row, recipe.batch, recipe.context, seed=recipe.seed)
    sampler.load_state_dict(sampler.state_dict() | {"batch": step})
    return sampler


def validation(row: NDArray[np.int64], recipe: Recipe) -> list[tuple[paddle.Tensor, paddle.Tensor]]:
    """The same batches every time, spread evenly over the held-out text."""
    count = VALIDATION_BATCHES * recipe.batch
    starts = np.linspace(0, len(row) - recipe.context - 1, count).astype(np.int64)
    windows = row[starts[:, None] + np.arange(recipe.context + 1)]
    parts = [paddle.to_tensor(part) for part in np.split(windows, VALIDATION_BATCHES)]
    return [(part[:, :-1], part[:, 1:]) for part in parts]
