"""What an evaluation asks of a model, whatever runs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Value = str | int | float | bool | None


class NotSupported(ValueError):
    """A backend cannot answer this kind of request; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How probable a text is.

    Args:
        logprob: log-probability of the continuation, or of the whole text, nats.
        greedy: whether each of its tokens was the most probable one; None where that is not known.
        tokens: number of tokens scored.
        truncated: whether some context did not fit the model and was left out.
    """

    logprob: float
    greedy: bool | None
    tokens: int
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A text to continue, greedily.

    Args:
        text: the prompt.
        stop: texts at which to end, themselves left out.
        max_tokens: most tokens to add.
    """

    text: str
    stop: tuple[str, ...] = ()
    max_tokens: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """What a model wrote.

    Args:
        text: without the stop text.
        finish: "stop" at a stop text or the model's own end, "length" otherwise.
        tokens: number of tokens made.
        truncated: whether some of the prompt did not fit the model and was left out.
    """

    text: str
    finish: Literal["stop", "length"]
    tokens: int
    truncated: bool = False


class Backend(Protocol):
    """Runs a model."""

    @property
    def description(self) -> Mapping[str, Value]:
        """What identifies the model and how it is run: goes into every fingerprint and every cache key."""

    def loglikelihood(self, requests: Sequence[tuple[str, str]]) -> list[Score]:
        """Score the second text of each pair as continuation of the first."""

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[Score]:
        """Score whole texts, longer ones in windows that cover each token once."""

    def generate(self, prompts: Sequence[Prompt]) -> list[Continuation]:
        """Continue prompts greedily."""


def cut_at_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop text, and whether there was one."""
    ends = [at for at in (text.find(end) for end in stop) if at >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
