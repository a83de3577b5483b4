"""How a token is shown by itself."""

import functools

from oarlock.llm.tokenizers import Tokenizer


class TokenTexts:
    """Texts of single tokens, spaces at their beginning included; ids that are no tokens have none.

    Args:
        tokenizer: whose tokens.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._names = {token: name for name, token in tokenizer.special_tokens.items()}
        self.text = functools.lru_cache(maxsize=1 << 16)(self._text)

    def _text(self, token: int) -> str:
        if token in self._names:
            return self._names[token]
        if token >= self._tokenizer.vocab_size:  # of a model with more logits than tokens
            return ""
        spelt = self._tokenizer.token_bytes(token)
        try:
            return spelt.decode()
        except UnicodeDecodeError:  # a part of a character, shown as OpenAI does
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelt)

    def bytes(self, token: int) -> list[int] | None:
        """UTF-8 that the token adds to a text; None for a special token, which adds none."""
        if token in self._names or token >= self._tokenizer.vocab_size:
            return None
        return list(self._tokenizer.token_bytes(token))
