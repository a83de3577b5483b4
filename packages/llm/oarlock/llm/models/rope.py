"""Rotary positions that reach further than the texts a model was trained on.

Pair i of a head of size K turns by position times frequency f_i = theta^(-2i/K); each way here changes
the f_i, and YaRN also the length of what is turned:

- linear (2306.15595): f_i / factor
- dynamic: beyond the original length a larger theta for the whole text, which depends on its length
- yarn (2309.00071): slow frequencies divided, fast ones kept, a ramp between
- llama3: the same with another ramp, as Llama 3.1 was trained
- divided: by one given number a pair, as GGUF files store Llama 3's

Shapes: T positions, K head size.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from oarlock.llm.models import common

KINDS = ("linear", "dynamic", "yarn", "llama3", "divided")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """How the frequencies of rotary positions are changed.

    Args:
        kind: linear, dynamic, yarn, llama3 or divided.
        factor: how many times longer texts may be than ``original_length``.
        original_length: positions that the model was first trained on; for all but linear and divided.
        low_turns, high_turns: llama3: pairs that turn fewer times over the original length than
            ``low_turns`` are slowed by the factor, those that turn more than ``high_turns`` are kept.
            yarn: the same, 1 and 32 in the paper.
        whole_pairs: yarn: begin and end the ramp at whole pairs.
        length_factor: yarn: of cosine and sine; None: 0.1 ln(factor) + 1.
        divisors: divided: one number a pair.
    """

    kind: str
    factor: float = 1.0
    original_length: int | None = None
    low_turns: float = 1.0
    high_turns: float = None  # type: ignore[assignment]  # None: 4 of llama3, 32 of yarn
    whole_pairs: bool = True
    length_factor: float | None = None
    divisors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {self.kind!r}.")
        if self.high_turns is None:
            object.__setattr__(self, "high_turns", 32.0 if self.kind == "yarn" else 4.0)
        object.__setattr__(self, "divisors", tuple(self.divisors))
        length = self.original_length
        if self.kind in ("dynamic", "yarn", "llama3") and (
            isinstance(length, bool) or not isinstance(length, int) or length < 1
        ):
            raise ValueError(
                f"original_length must be a positive integer for {self.kind}, got {length!r}."
            )
        numbers = {name: getattr(self, name) for name in ("factor", "low_turns", "high_turns")}
        if self.length_factor is not None:
            numbers["length_factor"] = self.length_factor
        numbers |= {f"divisors[{i}]": divisor for i, divisor in enumerate(self.divisors)}
        for name, value in numbers.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value <= 0:
                raise ValueError(f"{name} must be a finite number above 0, got {value!r}.")
        if self.low_turns >= self.high_turns:
            raise ValueError(
                f"low_turns must be below high_turns = {self.high_turns}, got {self.low_turns}."
            )
        if bool(self.divisors) != (self.kind == "divided"):
            raise ValueError(
                f"divisors must be given for divided and nothing else, got {len(self.divisors)} for "
                f"{self.kind}."
            )


def scaling_of(value: Any) -> RopeScaling | None:
    """A configuration's field: None, the dataclass, or what ``dataclasses.asdict`` made of it."""
    if value is None or isinstance(value, RopeScaling):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"rope_scaling must be a RopeScaling or None, got {value!r}.")
    known = {field.name for field in dataclasses.fields(RopeScaling)}
    unknown = sorted(set(value) - known)
    if unknown or "kind" not in value:
        raise ValueError(
            f"rope_scaling must have kind and of {sorted(known)} only, got {sorted(value)}."
        )
    return RopeScaling(**value)


def frequencies(
    size: int, theta: float, scaling: RopeScaling | None, length: int
) -> NDArray[np.float64]:
    """Radians per position of each pair, [size/2].

    Args:
        size: K.
        theta: base of the frequencies.
        scaling: how they are changed.
        length: positions of the whole text; matters for dynamic only.
    """
    if scaling is not None and scaling.kind == "dynamic":
        assert scaling.original_length is not None
        longer = max(length, scaling.original_length) / scaling.original_length
        stretch = scaling.factor * longer - (scaling.factor - 1)
        theta = theta * stretch ** (size / max(size - 2, 1))
    plain = theta ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    if scaling is None or scaling.kind == "dynamic":
        return plain
    if scaling.kind == "linear":
        return plain / scaling.factor
    if scaling.kind == "divided":
        if len(scaling.divisors) != size // 2:
            raise ValueError(
                f"divisors must be {size // 2}, one a pair of a head of {size}, "
                f"got {len(scaling.divisors)}."
            )
        return plain / np.array(scaling.divisors)
    kept = (
        _llama3_share(plain, scaling)
        if scaling.kind == "llama3"
        else _yarn_share(theta, size, scaling)
    )
    return plain * (kept + (1 - kept) / scaling.factor)


def _llama3_share(plain: NDArray[np.float64], scaling: RopeScaling) -> NDArray[np.float64]:
    """Share of each frequency that stays as it is: linear in the turns over the original length."""
    assert scaling.original_length is not None
    turns = plain * (scaling.original_length / (2 * math.pi))
    share = (turns - scaling.low_turns) / (scaling.high_turns - scaling.low_turns)
    return np.clip(share, 0, 1)


def _yarn_share(theta: float, size: int, scaling: RopeScaling) -> NDArray[np.float64]:
    """The same for YaRN: linear in the pair's number between those with the given turns."""
    pair_of_turns = [
        size * math.log(scaling.original_length / (turns * 2 * math.pi)) / (2 * math.log(theta))  # type: ignore[operator]
        for turns in (scaling.high_turns, scaling.low_turns)
    ]
    first, last = pair_of_turns
    if scaling.whole_pairs:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, size - 1)
    last = last if last != first else first + 0.001
    pairs = np.arange(size // 2, dtype=np.float64)
    slowed: NDArray[np.float64] = np.clip((pairs - first) / (last - first), 0.0, 1.0)
    return 1.0 - slowed


def amplitude(scaling: RopeScaling | None) -> float:
    """Factor of cosine and sine; 1 but for YaRN."""
    if scaling is None or scaling.kind != "yarn":
        return 1.0
    if scaling.length_factor is not None:
        return scaling.length_factor
    return 0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0


def tables(
    length: int, size: int, theta: float, scaling: RopeScaling | None = None, *, start: int = 0
) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Cosine and sine of positions start .. length - 1 in a text of ``length``, each [T, size/2]."""
    angles = np.outer(np.arange(start, length), frequencies(size, theta, scaling, length))
    scale = amplitude(scaling)
    cos, sin = scale * np.cos(angles), scale * np.sin(angles)
    return paddle.to_tensor(cos.astype(np.float32)), paddle.to_tensor(sin.astype(np.float32))


def fixed_tables(config: Any) -> tuple[paddle.Tensor, paddle.Tensor]:
    """Tables of a configuration for texts whose length does not change the frequencies."""
    scaling, length = config.rope_scaling, config.max_length
    if scaling is not None and scaling.kind == "dynamic":
        length = min(length, scaling.original_length)
    return tables(length, config.head_size, config.rope_theta, scaling)


def rotations(
    config: Any, cos: paddle.Tensor, sin: paddle.Tensor, start: int, T: int, copies: int
) -> paddle.Tensor:
    """``common.rope_rotations`` of T positions from ``start``.

    Under dynamic scaling a text beyond the original length has its own frequencies; keys that a
    cache already holds stay as they were turned.
    """
    if start + T > cos.shape[0]:
        cos, sin = (
            table.astype(cos.dtype)
            for table in tables(
                start + T, config.head_size, config.rope_theta, config.rope_scaling, start=start
            )
        )
        start = 0
    return common.rope_rotations(cos, sin, start, T, copies)
