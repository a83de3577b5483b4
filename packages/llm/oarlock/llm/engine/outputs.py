"""What a request gets."""

import dataclasses
from typing import Literal

#: Why a text ended: a stop text or token or the model's own end; its length; the request was aborted; its
#: constraint or logits left no token to draw.
FinishReason = Literal["stop", "length", "abort", "error"]


@dataclasses.dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token's log-probability, and the most probable tokens in its place.

    Args:
        token: its id.
        logprob: nats.
        top: (id, log-probability) of as many most probable tokens as asked for, best first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of a request: of the prompt, of those the ones found in the cache, and of all its texts."""

    prompt_tokens: int
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What a step of the engine added to one of a request's texts.

    Args:
        request: its id.
        index: which of its ``n`` texts.
        text: added; characters that are not whole yet, and what may turn out a stop text, come later.
        tokens: added; they may be ahead of ``text``.
        logprobs: one a token, where asked for.
        prompt_logprobs: with the first delta of a text, where asked for.
        finish_reason: with the last delta of a text.
        stop: the text or token id that it stopped at, if it did.
        usage: with the last delta of the request's last text.
        error: why, where finish_reason is "error".
    """

    request: str
    index: int = 0
    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stop: str | int | None = None
    usage: Usage | None = None
    error: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One text that continues a prompt."""

    index: int
    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[TokenLogprob, ...] = ()
    stop: str | int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All texts of a request, in the order of their index."""

    request: str
    prompt: tuple[int, ...]
    completions: tuple[Completion, ...]
    usage: Usage
    prompt_logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def text(self) -> str:
        """The first text."""
        return self.completions[0].text
