"""The bytes of UTF-8 as tokens."""

from oarlock.llm.tokenizers.base import Tokenizer


class ByteTokenizer(Tokenizer):
    """Each byte of the UTF-8 encoding is a token: 256 ids, no training, any text."""

    @property
    def vocab_size(self) -> int:
        return 256

    def _encode(self, text: str) -> list[int]:
        return list(text.encode())

    def _decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")

    def _bytes_of(self, token: int) -> bytes:
        return bytes([token])
