"""How a token is shown by itself."""

import functools

from oarlock.llm.tokenizers import Tokenizer

ANCHOR = "a"


class TokenTexts:
    """Texts of single tokens, spaces at their beginning included.

    Args:
        tokenizer: whose tokens.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._names = {token: name for name, token in tokenizer.special_tokens.items()}
        # Some tokenizers take a space from the beginning of a text: what follows another token has it.
        self._anchor = tokenizer.encode(ANCHOR)
        self._before = tokenizer.decode(self._anchor)
        self.text = functools.lru_cache(maxsize=1 << 16)(self._text)

    def _text(self, token: int) -> str:
        if token in self._names:
            return self._names[token]
        return self._tokenizer.decode([*self._anchor, token]).removeprefix(self._before)

    def bytes(self, token: int) -> list[int] | None:
        """UTF-8 of the token's text; None if it holds a part of a character only."""
        text = self.text(token)
        return None if "\ufffd" in text else list(text.encode())
