"""What a request asks for."""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

NOTHING: Mapping[int, float] = MappingProxyType({})


@dataclasses.dataclass(frozen=True, slots=True)
class Constraint:
    """A language that the text must belong to; tokens that would leave it are not drawn.

    Args:
        kind: "json" for any JSON value; "json_schema", "regex" (of the whole text), "grammar" (in Lark's
            notation).
        source: the schema, expression or grammar; empty for "json".
    """

    kind: Literal["json", "json_schema", "regex", "grammar"]
    source: str = ""

    def __post_init__(self) -> None:
        kinds = ("json", "json_schema", "regex", "grammar")
        if self.kind not in kinds:
            raise ValueError(f"kind must be one of {', '.join(kinds)}, got {self.kind!r}.")
        if bool(self.source) != (self.kind != "json"):
            raise ValueError(
                f"source must be given for every kind but json, got {self.source!r} for {self.kind}."
            )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How tokens are drawn, and when to stop.

    Logits are changed in this order: penalties and ``logit_bias``, the constraint, temperature; then
    ``top_k``, ``top_p`` and ``min_p`` each leave a set of tokens, by the probabilities before any of them.

    Args:
        max_tokens: most tokens to add; None for as many as the model's context holds.
        temperature: 0 takes the most probable token.
        top_k: among so many most probable tokens; None for all.
        top_p: among the most probable tokens whose probabilities sum to this (1904.09751).
        min_p: among tokens with at least this share of the largest probability (2407.01082).
        repetition_penalty: divides positive logits of tokens of prompt and text, multiplies negative ones
            (1909.05858).
        presence_penalty: subtracted from the logits of tokens of the text so far.
        frequency_penalty: subtracted as often as the token occurs in the text so far.
        logit_bias: added to logits, by token id.
        seed: of this request's own random numbers; None for one that the engine draws.
        n: how many texts to draw for the prompt.
        logprobs: report log-probabilities (of the softmax of the model's own logits) of the drawn tokens
            and of so many most probable ones; None for no report.
        prompt_logprobs: the same for the prompt's tokens but the first.
        prompt_logprobs_last: of so many of the prompt's last tokens only; those before are not computed again where
            they are known.
        stop: texts at which to stop, themselves left out.
        stop_token_ids: tokens at which to stop, besides the model's own.
        ignore_eos: go on after the model's own end.
        constraint: language of the text.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=lambda: NOTHING)
    seed: int | None = None
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    prompt_logprobs_last: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 0), ("top_k", 1), ("seed", 0)):
            self._check_count(name, least)
        for name in ("logprobs", "prompt_logprobs"):
            self._check_count(name, 0)
        self._check_count("prompt_logprobs_last", 1)
        if self.prompt_logprobs is None and self.prompt_logprobs_last is not None:
            raise ValueError("prompt_logprobs must be given with prompt_logprobs_last, got None.")
        if self.n is None:
            raise ValueError("n must be an integer, 1 or more, got None.")
        self._check_count("n", 1)
        self._check_range("temperature", 0, math.inf)
        self._check_range("top_p", 0, 1, open_below=True)
        self._check_range("min_p", 0, 1)
        self._check_range("repetition_penalty", 0, math.inf, open_below=True)
        self._check_range("presence_penalty", -math.inf, math.inf)
        self._check_range("frequency_penalty", -math.inf, math.inf)
        if isinstance(self.stop, str):
            raise ValueError(f"stop must be several texts, got one; write ({self.stop!r},).")
        if not all(isinstance(text, str) and text for text in self.stop):
            raise ValueError(f"stop must be texts that are not empty, got {self.stop!r}.")
        for token, bias in self.logit_bias.items():
            if isinstance(token, bool) or not isinstance(token, int) or not _is_number(bias):
                raise ValueError(
                    f"logit_bias must map token ids to finite numbers, got {token!r}: {bias!r}."
                )

    @property
    def changes_logits(self) -> bool:
        """Whether there are penalties or biases."""
        counted = self.presence_penalty != 0.0 or self.frequency_penalty != 0.0
        return counted or self.repetition_penalty != 1.0 or bool(self.logit_bias)

    def _check_count(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer, {least} or more, got {value!r}.")

    def _check_range(self, name: str, low: float, high: float, *, open_below: bool = False) -> None:
        value = getattr(self, name)
        if _is_number(value) and low <= value <= high and not (open_below and value == low):
            return
        least = f"above {low:g}" if open_below else f"at least {low:g}"
        most = "" if high == math.inf else f" and at most {high:g}"
        raise ValueError(f"{name} must be a finite number, {least}{most}, got {value!r}.")


def _is_number(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and what to do with it.

    Args:
        id: unique among those that are not finished.
        prompt: token ids.
        params: how to continue it.
        priority: smaller numbers first; among equals the one that came first.
        adapter: name of a LoRA adapter; None for the model alone.
    """

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams = SamplingParams()
    priority: int = 0
    adapter: str | None = None
