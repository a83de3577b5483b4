"""The models that are compressed, each with text to calibrate on and text to measure on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from oarlock.accept import data, prepare
from oarlock.llm import models, weights
from oarlock.llm.data import split

Batch = tuple[paddle.Tensor, paddle.Tensor]
CALIBRATION_BATCH = 8  #: sequences
MEASURING_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model, its data and what is known of its parts.

    Args:
        calibration, held_out: batches of (tokens, targets).
        heads: number of attention heads by pattern of the layer that reads them.
        origin: of weights and text, for the notes.
        own_text: whether the model drew the text itself, so that the probabilities of its tokens are
            known.
    """

    model: models.LanguageModel
    calibration: list[Batch]
    held_out: list[Batch]
    heads: dict[str, int]
    origin: str
    own_text: bool


def stories260k(count: int, length: int, seed: int) -> Subject:
    """Karpathy's LLaMA of 260 thousand parameters, on stories that it writes itself."""
    model = weights.load_llama2c(data.path("weights/stories260K", "stories260K.bin"))
    return _on_own_text(
        model, 1, count, length, seed, {"*.attention.out": 8}, data.origin("weights/stories260K")
    )


def rwkv4(count: int, length: int, seed: int) -> Subject:
    """rwkv.cpp's RWKV-4 of 660 thousand parameters, on text that it writes itself."""
    model = weights.load_rwkv_cpp(data.path("weights/tiny_rwkv", "tiny-rwkv-4v0-660K-FP32.bin"))
    return _on_own_text(model, 10, count, length, seed, {}, data.origin("weights/tiny_rwkv"))


MORE = (
    4  #: times as many sequences are measured on where the text's own probabilities are not known
)


def prepared(name: str, count: int, length: int, seed: int) -> Subject:
    """A model of ``accept prepare`` over bytes: calibrated on its training text, measured on held-out.

    Losses there are those of the tokens drawn, not expectations, so more of them are needed.
    """
    model, card = prepare.load(name)
    recipe = prepare.recipe(name)
    text = np.frombuffer(data.load_text(recipe.data, part=recipe.part).encode(), np.uint8)
    training, held_out = split(text, validation=recipe.held_out)
    rng = np.random.default_rng(seed)
    parts = [
        _windows(part, number, length, rng)
        for part, number in ((training, count), (held_out, MORE * count))
    ]
    return Subject(
        model=model,
        calibration=_batches(parts[0], CALIBRATION_BATCH),
        held_out=_batches(parts[1], MEASURING_BATCH),
        heads={},
        origin=f"{name} of accept prepare; text: {data.origin(recipe.data, part=recipe.part)}",
        own_text=False,
    )


SUBJECTS: dict[str, Callable[[int, int, int], Subject]] = {
    "stories260k": stories260k,
    "rwkv4": rwkv4,
    "gpt": lambda count, length, seed: prepared("gpt-shakespeare-bytes", count, length, seed),
}


def _on_own_text(
    model: models.LanguageModel,
    start: int,
    count: int,
    length: int,
    seed: int,
    heads: dict[str, int],
    origin: str,
) -> Subject:
    """Text drawn from the model at temperature 1: on it the gradient of the loss is zero but for chance.

    The text that these models were trained on is not at hand.
    """
    first = paddle.full([2 * count, 1], start, "int64")
    drawn = model.generate(first, max_new_tokens=length, temperature=1.0, seed=seed).numpy()
    return Subject(
        model=model,
        calibration=_batches(drawn[:count], CALIBRATION_BATCH),
        held_out=_batches(drawn[count:], MEASURING_BATCH),
        heads=heads,
        origin=f"{origin}; text drawn from the model itself, {count} sequences of {length} tokens to"
        " calibrate on and as many others to measure on",
        own_text=True,
    )


def _windows(
    text: NDArray[np.uint8], count: int, length: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    starts = rng.integers(0, len(text) - length - 1, count)
    return text[starts[:, None] + np.arange(length + 1)].astype(np.int64)


def _batches(rows: NDArray[Any], size: int) -> list[Batch]:
    parts: Sequence[NDArray[Any]] = [rows[i : i + size] for i in range(0, len(rows), size)]
    return [(paddle.to_tensor(part[:, :-1]), paddle.to_tensor(part[:, 1:])) for part in parts]
