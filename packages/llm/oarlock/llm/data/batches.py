"""Batches of (tokens, targets) from a long row of tokens."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import paddle

from oarlock.llm.data.token_file import TokenFile

Tokens: TypeAlias = TokenFile | np.ndarray
Batch: TypeAlias = tuple[paddle.Tensor, paddle.Tensor]


class BatchSampler:
    """Endless batches of windows drawn at random positions, seeded and resumable.

    Every window of ``length`` + 1 tokens is equally probable, drawn with replacement. Batch number
    i depends on ``seed`` and i only, so a sampler that is given its ``state_dict`` back continues
    exactly.

    Args:
        tokens: one-dimensional, a ``TokenFile`` or an integer array.
        batch_size: windows a batch, B.
        length: tokens a window, T.
        seed: of the positions.

    Yields:
        tokens and targets, int64 tensors [B, T]; targets are the tokens one position later.
    """

    def __init__(self, tokens: Tokens, batch_size: int, length: int, seed: int = 0):
        self._tokens = _as_row(tokens)
        for name, value in (("batch_size", batch_size), ("length", length)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}.")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be an integer, 0 or above, got {seed!r}.")
        if len(self._tokens) < length + 1:
            raise ValueError(
                f"length {length} needs at least {length + 1} tokens, got {len(self._tokens)}."
            )
        self.batch_size, self.length, self.seed = batch_size, length, seed
        self.batch = 0  # number of the next one

    def __iter__(self) -> "BatchSampler":
        return self

    def __next__(self) -> Batch:
        rng = np.random.default_rng((self.seed, self.batch))
        starts = rng.integers(0, len(self._tokens) - self.length, self.batch_size)
        self.batch += 1
        return _batch(self._tokens, starts, self.length)

    def state_dict(self) -> dict[str, int]:
        """What ``load_state_dict`` needs to continue from here."""
        return {
            "batch": self.batch,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "length": self.length,
            "num_tokens": len(self._tokens),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state_dict`` was taken; ValueError if it was another sampler's."""
        own = self.state_dict()
        if set(state) != set(own):
            raise ValueError(f"state must have the keys {sorted(own)}, got {sorted(state)}.")
        for name in own:
            if name != "batch" and state[name] != own[name]:
                raise ValueError(f"state has {name} = {state[name]}, this sampler {own[name]}.")
        self.batch = int(state["batch"])


def eval_batches(tokens: Tokens, batch_size: int, length: int) -> Iterator[Batch]:
    """Go through ``tokens`` in order so that each but the first is a target exactly once.

    The last windows are shorter and the last batch of full windows smaller; nothing is left out,
    so a mean over the tokens must weigh a batch by its number of targets.

    Args:
        tokens: one-dimensional, at least two.
        batch_size: windows a batch at most.
        length: tokens a window at most.

    Yields:
        tokens and targets, int64 tensors [<= batch_size, <= length].
    """
    row = _as_row(tokens)
    for name, value in (("batch_size", batch_size), ("length", length)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    if len(row) < 2:
        raise ValueError(f"tokens must be at least two to have a target, got {len(row)}.")
    return _eval_batches(row, batch_size, length)


def _eval_batches(row: np.ndarray, batch_size: int, length: int) -> Iterator[Batch]:
    starts = np.arange((len(row) - 1) // length) * length
    for first in range(0, len(starts), batch_size):
        yield _batch(row, starts[first : first + batch_size], length)
    rest = (len(row) - 1) % length
    if rest:
        yield _batch(row, np.array([len(row) - 1 - rest]), rest)


def split(tokens: Tokens, *, validation: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Cut tokens into the first part for training and the last for validation, without copying.

    Args:
        tokens: one-dimensional.
        validation: share of the tokens at the end, above 0 and below 1.
    """
    if not 0 < validation < 1:
        raise ValueError(f"validation must be above 0 and below 1, got {validation}.")
    row = _as_row(tokens)
    cut = len(row) - round(len(row) * validation)
    return row[:cut], row[cut:]


def _as_row(tokens: Tokens) -> np.ndarray:
    row = tokens.tokens if isinstance(tokens, TokenFile) else np.asarray(tokens)
    if row.ndim != 1 or not np.issubdtype(row.dtype, np.integer):
        raise ValueError(
            f"tokens must be one row of integers, got {row.dtype} of shape {row.shape}."
        )
    return row


def _batch(row: np.ndarray, starts: np.ndarray, length: int) -> Batch:
    windows = row[starts[:, None] + np.arange(length + 1)].astype(np.int64)
    return paddle.to_tensor(windows[:, :-1]), paddle.to_tensor(windows[:, 1:])
