"""From texts to rows of tokens of which some are scored, as all backends with a tokenizer do it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from oarlock.llm.eval.backends.base import NotSupported
from oarlock.llm.tokenizers import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Tokens, the last ``scored`` of which are scored given all before.

    Args:
        tokens: at least one more than ``scored``.
        scored: number of tokens to score.
        truncated: whether context was left out.
    """

    tokens: tuple[int, ...]
    scored: int
    truncated: bool = False


class Encoder:
    """Encodes as lm-eval does, so that scores can be compared.

    A space at the end of a context belongs to the continuation; both are encoded together, and the
    continuation's tokens are those after as many as the context has alone. A text without context follows
    the start token.

    Args:
        tokenizer: of the model.
        start: id that begins every text; None where the model was trained without one, then the
            first token of a text is context and not scored.
        max_length: tokens that the model takes at once; None without limit.

    Source: lm-eval 0.4, `TemplateLM._encode_pair` and `utils.get_rolling_token_windows`.
    """

    def __init__(self, tokenizer: Tokenizer, *, start: int | None, max_length: int | None):
        if max_length is not None and max_length < 2:
            raise ValueError(f"max_length must be 2 or more, got {max_length}.")
        self.tokenizer, self.start, self.max_length = tokenizer, start, max_length
        # the choices of an item share a context, and encoding may cost more than a small model
        self._encode = lru_cache(maxsize=1024)(tokenizer.encode)

    def _begin(self) -> list[int]:
        return [] if self.start is None else [self.start]

    def pair(self, context: str, continuation: str) -> Row:
        """Row that scores a continuation.

        Raises:
            ValueError: there is nothing to score.
            NotSupported: the continuation alone is longer than the model takes.
        """
        spaces = len(context) - len(context.rstrip())
        if spaces:
            continuation = context[-spaces:] + continuation
            context = context[:-spaces]
        whole = self.tokenizer.encode(context + continuation)
        length = len(self._encode(context))
        if not context and self.start is None:
            length = 1  # the first token cannot be scored without any before it
        scored = len(whole) - length
        if scored < 1:
            raise ValueError(
                f"continuation {continuation!r} has no token of its own after {context[-40:]!r}."
            )
        return self._fit(self._begin() + whole, scored)

    def prompt(self, text: str, new: int) -> tuple[tuple[int, ...], bool]:
        """A prompt's last tokens that leave room for ``new`` more, and whether any were left out.

        Raises:
            ValueError: there is no token.
            NotSupported: the model has no room for that many and a prompt.
        """
        tokens = self._begin() + self.tokenizer.encode(text)
        if not tokens:
            raise ValueError("prompt must not be empty for a model without a start token.")
        if self.max_length is None or len(tokens) + new <= self.max_length:
            return tuple(tokens), False
        room = self.max_length - new
        if room < 1:
            raise NotSupported(
                f"{new} new tokens were asked for, but the model holds {self.max_length} in all."
            )
        return tuple(tokens[-room:]), True

    def windows(self, text: str) -> Iterator[Row]:
        """Rows that score each token of a text once; each window but the first begins with one token of context.

        Raises:
            ValueError: there is nothing to score.
        """
        tokens = self.tokenizer.encode(text)
        if self.start is not None:
            tokens = [self.start, *tokens]
        if len(tokens) < 2:
            raise ValueError(f"text {text!r} has no token to score.")
        size = self.max_length or len(tokens)
        # a row of `size` inputs has size + 1 tokens, of which the last is only predicted
        scored = min(size, len(tokens) - 1)
        yield Row(tokens=tuple(tokens[: scored + 1]), scored=scored)
        at = scored + 1
        while at < len(tokens):
            end = min(at + size, len(tokens))
            begin = max(0, end - size - 1)
            yield Row(tokens=tuple(tokens[begin:end]), scored=end - at)
            at = end

    def _fit(self, tokens: Sequence[int], scored: int) -> Row:
        if self.max_length is None or len(tokens) - 1 <= self.max_length:
            return Row(tokens=tuple(tokens), scored=scored)
        if scored > self.max_length:
            raise NotSupported(
                f"a continuation has {scored} tokens, the model takes {self.max_length} at once."
            )
        return Row(tokens=tuple(tokens[-self.max_length - 1 :]), scored=scored, truncated=True)
