"""Text that grows token by token."""

import codecs
from collections.abc import Sequence

from oarlock.llm.tokenizers.base import Tokenizer


class Detokenizer:
    """Turns ids into text as they come; characters appear when all their bytes are there.

    What all calls return, ``finish``'s last, is ``decode`` of all the ids without special tokens. Ids beyond the
    tokenizer's add nothing: models may have more logits than there are tokens.

    Args:
        tokenizer: whose ids they are.
        continues: the ids go on with a text that has begun, such as a prompt: a first space stays.
    """

    def __init__(self, tokenizer: Tokenizer, *, continues: bool = False):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._drops_space = tokenizer.adds_space and not continues

    def push(self, ids: Sequence[int]) -> str:
        """Text of whole characters that the ids complete."""
        known = (token for token in ids if token < self._tokenizer.vocab_size)
        added = b"".join(map(self._tokenizer.token_bytes, known))
        if self._drops_space and added:
            added, self._drops_space = added.removeprefix(b" "), False
        return self._decoder.decode(added)

    def finish(self) -> str:
        """U+FFFD for a character that was begun and not ended, if any; nothing may follow."""
        return self._decoder.decode(b"", final=True)
