"""Texts that must belong to a language: JSON, a JSON schema, a regular expression, a grammar.

The automata are those of the library ``llguidance``; here they meet our tokenizers and logits.
"""

from collections.abc import Sequence
from typing import Any

import llguidance
import llguidance.numpy
import numpy as np
from numpy.typing import NDArray

from oarlock.llm.engine.params import Constraint
from oarlock.llm.tokenizers import Tokenizer

_ANY_JSON = "{}"  # the schema that every value satisfies
# Small models love spaces; without this a value can begin with any number of them.
_COMPACT: Any = {"whitespace_flexible": False}
NO_BYTES = b"\xff"  # begins the spelling of tokens that stand for no text, as the library has it


class _Vocabulary:
    """A tokenizer as the library wants it: bytes of each token, and how a text is cut."""

    def __init__(self, tokenizer: Tokenizer, size: int, end: int) -> None:
        self._tokenizer = tokenizer
        special = {token: name for name, token in tokenizer.special_tokens.items()}
        known = tokenizer.vocab_size
        self.eos_token_id, self.bos_token_id = end, None
        self.tokens = [
            tokenizer.token_bytes(token) if token < known and token not in special else b""
            for token in range(size)
        ]
        for token, spelling in enumerate(self.tokens):
            if not spelling:
                self.tokens[token] = NO_BYTES + special.get(token, f"<{token}>").encode()
        self.special_token_ids = [i for i, one in enumerate(self.tokens) if one[:1] == NO_BYTES]

        self._by_bytes = {
            one: token for token, one in enumerate(self.tokens) if one[:1] != NO_BYTES
        }
        self._longest = max(map(len, self._by_bytes), default=1)

    def __call__(self, text: bytes) -> list[int]:
        """Tokens of what must follow; it goes on with a text, so no space is put before it."""
        if not self._tokenizer.adds_space:
            return self._tokenizer.encode(text.decode(errors="replace"))
        ids, at = [], 0
        while at < len(text):
            for end in range(min(len(text), at + self._longest), at, -1):
                token = self._by_bytes.get(text[at:end])
                if token is not None:
                    ids.append(token)
                    at = end
                    break
            else:
                at += 1  # a byte that no token spells
        return ids


class Constraints:
    """Makes matchers for the texts of one model.

    Args:
        tokenizer: of the model.
        size: numbers of the model's logits, perhaps more than the tokenizer's.
        ends: tokens that end a text; without any, a text ends when nothing may follow.
    """

    def __init__(self, tokenizer: Tokenizer, size: int, ends: Sequence[int]) -> None:
        self._tokenizer, self._size, self._ends = tokenizer, size, tuple(ends)
        self._made: llguidance.LLTokenizer | None = None

    def __call__(self, constraint: Constraint) -> "GrammarMatcher":
        """The matcher of a text that begins.

        Raises:
            ValueError: the source cannot be read.
        """
        if self._made is None:  # takes a while, and most models never need it
            # Without an end of its own a model gets one that no logit stands for.
            end, size = (self._ends[0], self._size) if self._ends else (self._size, self._size + 1)
            vocabulary = _Vocabulary(self._tokenizer, size, end)
            self._made = llguidance.LLTokenizer(llguidance.TokenizerWrapper(vocabulary))
        matcher = llguidance.LLMatcher(self._made, _grammar(constraint), log_level=0)
        if matcher.is_error():
            raise ValueError(f"constraint cannot be read: {matcher.get_error()}")
        return GrammarMatcher(matcher, self._made.vocab_size, self._ends)


def _grammar(constraint: Constraint) -> str:
    kind, source = constraint.kind, constraint.source
    try:
        if kind in ("json", "json_schema"):
            return llguidance.LLMatcher.grammar_from_json_schema(source or _ANY_JSON, _COMPACT)
        if kind == "regex":
            return llguidance.LLMatcher.grammar_from_regex(source)
        return llguidance.LLMatcher.grammar_from_lark(source)
    except ValueError as error:
        raise ValueError(f"constraint cannot be read: {error}") from error


class GrammarMatcher:
    """What may follow in one text. See ``texts.Matcher``."""

    def __init__(self, matcher: llguidance.LLMatcher, size: int, ends: Sequence[int]) -> None:
        self._matcher, self._size, self._ends = matcher, size, ends
        self._bits = llguidance.numpy.allocate_token_bitmask(1, size)

    def mask(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        allowed = self._allowed()[: len(logits)]
        for end in self._ends:
            allowed[end] = self._matcher.is_accepting()
        return np.where(allowed, logits, np.float32(-np.inf))

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise RuntimeError(f"token {token} is outside of the constraint's language")

    def copy(self) -> "GrammarMatcher":
        return GrammarMatcher(self._matcher.deep_copy(), self._size, self._ends)

    @property
    def complete(self) -> bool:
        return self._matcher.is_stopped()

    def _allowed(self) -> NDArray[np.bool_]:
        """Of each token, whether it may follow."""
        llguidance.numpy.fill_next_token_bitmask(self._matcher, self._bits, 0)
        return np.unpackbits(self._bits[0].view(np.uint8), bitorder="little").astype(bool)
