"""A text that grows: its tokens, where their keys and values are, and what the client sees of it."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.engine import sampling
from oarlock.llm.engine.outputs import Delta, FinishReason, TokenLogprob
from oarlock.llm.engine.pages import Holding
from oarlock.llm.engine.params import Request
from oarlock.llm.engine.stops import StopTexts
from oarlock.llm.tokenizers import Tokenizer
from oarlock.llm.tokenizers.detokenizer import Detokenizer


class Matcher(Protocol):
    """The state of a constraint after the tokens so far."""

    def mask(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [V] with -inf at tokens that would leave the language; a copy."""

    def accept(self, token: int) -> None:
        """The token was drawn."""

    def copy(self) -> "Matcher":
        """The same state, for tokens that may not come."""

    @property
    def complete(self) -> bool:
        """Whether nothing but the end may follow."""


@dataclasses.dataclass(slots=True, eq=False)
class Text:
    """One of a request's texts.

    Args:
        request: what was asked for.
        index: which of its ``n``.
        order: rank among all requests: priority, then arrival.
        tokens: prompt and what was drawn.
        ends: tokens that end it.
        seed: of its draws, 64 bits.
        detokenizer: None where the model has no tokenizer.
        matcher: of its constraint.
        adapter: its number in the decoder; -1 for the model alone.
        computed: how many tokens have their keys and values in pages.
    """

    request: Request
    index: int
    order: tuple[int, int]
    tokens: list[int]
    ends: frozenset[int]
    seed: int
    detokenizer: Detokenizer | None
    matcher: Matcher | None = None
    adapter: int = -1
    computed: int = 0
    holding: Holding = dataclasses.field(init=False)
    stops: StopTexts = dataclasses.field(init=False)
    prompt_logprobs: list[TokenLogprob] = dataclasses.field(default_factory=list)
    siblings: list["Text"] = dataclasses.field(default_factory=list)  #: that wait for this prompt
    cached: int = 0  #: tokens of the prompt found in the cache
    finished: bool = False

    def __post_init__(self) -> None:
        self.stops = StopTexts(self.request.params.stop)
        self.holding = Holding(adapter=self.adapter)

    @classmethod
    def begin(
        cls,
        request: Request,
        index: int,
        order: tuple[int, int],
        *,
        seed: int,
        ends: frozenset[int],
        tokenizer: Tokenizer | None,
        matcher: Matcher | None,
        adapter: int,
    ) -> "Text":
        """A text that is its prompt so far."""
        params = request.params
        return cls(
            request,
            index,
            order,
            list(request.prompt),
            frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else ends),
            sampling.text_seed(seed, index),
            None if tokenizer is None else Detokenizer(tokenizer, continues=True),
            matcher,
            adapter,
        )

    @property
    def drawn(self) -> int:
        """How many tokens were drawn."""
        return len(self.tokens) - len(self.request.prompt)

    @property
    def reported(self) -> int:
        """Place of the first token of the prompt whose log-probability is still to be reported, else of what comes next."""
        params, count = self.request.params, len(self.request.prompt)
        if params.prompt_logprobs is None or self.drawn:
            return len(self.tokens)
        last = params.prompt_logprobs_last
        return (1 if last is None else count - last) + len(self.prompt_logprobs)

    @property
    def missing(self) -> int:
        """Tokens whose keys and values are not there."""
        return len(self.tokens) - self.computed

    def draw(self, logits: NDArray[np.float32]) -> tuple[int, TokenLogprob | None]:
        """The next token by the model's logits [V]; it is not added.

        Raises:
            sampling.NothingToDraw: there is none.
        """
        token = self.draw_after(logits, (), self.matcher)
        wanted = self.request.params.logprobs
        return token, None if wanted is None else sampling.report(logits, token, wanted)

    def draw_after(
        self, logits: NDArray[np.float32], more: Sequence[int], matcher: Matcher | None
    ) -> int:
        """What would be drawn by logits [V] if the text went on with some tokens more.

        Raises:
            sampling.NothingToDraw: there is none.
        """
        params, count = self.request.params, len(self.request.prompt)
        if params.changes_logits:
            text = [*self.tokens[count:], *more]
            logits = sampling.changed(logits, params, self.tokens[:count], text)
        if matcher is not None:
            logits = matcher.mask(logits)
        return sampling.draw(logits, params, sampling.key(self.seed, self.drawn + len(more)))

    def add(self, drawn: list[tuple[int, TokenLogprob | None]], max_length: int) -> Delta:
        """Take drawn tokens in and say what the client sees; tokens after an end are dropped.

        Args:
            drawn: in their order.
            max_length: tokens that the model holds.
        """
        params = self.request.params
        text, tokens, logprobs = "", [], []
        reason: FinishReason | None = None
        stop: str | int | None = None
        for token, logprob in drawn:
            self.tokens.append(token)
            tokens.append(token)
            logprobs += [] if logprob is None else [logprob]
            if token in self.ends:
                reason, stop = "stop", token if token in params.stop_token_ids else None
                break
            if self.matcher is not None:
                self.matcher.accept(token)
            if self.detokenizer is not None:
                passed, met = self.stops.push(self.detokenizer.push([token]))
                text += passed
                if met is not None:
                    reason, stop = "stop", met
                    break
            if self.matcher is not None and self.matcher.complete:
                reason = "stop"
                break
            if self.drawn == params.max_tokens or len(self.tokens) == max_length:
                reason = "length"
                break
        if reason is not None and not isinstance(stop, str):
            text += self._rest()
        return self.delta(text, tokens, logprobs, reason, stop)

    def end(self, reason: FinishReason, error: str | None = None) -> Delta:
        """End without another token."""
        return self.delta(self._rest(), [], [], reason, None, error)

    def delta(
        self,
        text: str,
        tokens: list[int],
        logprobs: list[TokenLogprob],
        reason: FinishReason | None,
        stop: str | int | None,
        error: str | None = None,
    ) -> Delta:
        self.finished = reason is not None
        first, self.prompt_logprobs = tuple(self.prompt_logprobs), []
        return Delta(
            request=self.request.id,
            index=self.index,
            text=text,
            tokens=tuple(tokens),
            logprobs=tuple(logprobs),
            prompt_logprobs=first,
            finish_reason=reason,
            stop=stop,
            error=error,
        )

    def _rest(self) -> str:
        """What was held back for want of the rest of a character or of a stop text."""
        if self.detokenizer is None:
            return ""
        passed, met = self.stops.push(self.detokenizer.finish())
        return passed if met is not None else passed + self.stops.finish()
