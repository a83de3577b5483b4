"""The vocabulary of the RWKV "world" models: the longest token that fits, again and again."""

import ast
import os
from typing import Self

from oarlock.llm.tokenizers.base import Tokenizer, read


class RWKVWorldTokenizer(Tokenizer):
    """Greedy longest match of byte strings; id 0 is no token of text but marks the end of one.

    Args:
        tokens: bytes of each id from 1; all 256 single bytes among them, so that any text fits.
        vocab_size: number of ids, the unused ones included; the published models have 65536.
    """

    def __init__(self, tokens: dict[int, bytes], vocab_size: int = 65536):
        if not tokens or min(tokens) < 1 or max(tokens) >= vocab_size:
            raise ValueError(f"tokens must have ids in 1..{vocab_size - 1}, got {len(tokens)}.")
        self._bytes = dict(tokens)
        self._ids = {token: i for i, token in tokens.items()}
        absent = [byte for byte in range(256) if bytes([byte]) not in self._ids]
        if absent:
            raise ValueError(f"tokens must hold every single byte, but {absent[0]} is absent.")
        self._vocab_size = vocab_size
        # for each first two bytes the lengths that occur, longest first
        lengths: dict[bytes, set[int]] = {}
        for token in self._ids:
            lengths.setdefault(token[:2], set()).add(len(token))
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> Self:
        """Read ``rwkv_vocab_*.txt`` (or ``.txt.gz``): lines of id, Python literal, length.

        Raises:
            ValueError: a line is broken (named by its number) or bytes are absent.
        """
        tokens: dict[int, bytes] = {}
        for number, line in enumerate(read(path).split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                first, _, rest = line.decode().partition(" ")
                literal, _, length = rest.rpartition(" ")
                token = ast.literal_eval(literal)
                token = token.encode() if isinstance(token, str) else token
                if len(token) != int(length) or not token:
                    raise ValueError(f"{len(token)} bytes, the line says {length}")
                tokens[int(first)] = token
            except (ValueError, SyntaxError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path} is corrupt or truncated: line {number} must be an id, a Python "
                    f"literal and its length in bytes ({error})."
                ) from error
        try:
            return cls(tokens)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def special_tokens(self) -> dict[str, int]:
        return {"<|endoftext|>": 0}

    def _encode(self, text: str) -> list[int]:
        data, ids, start = text.encode(), [], 0
        while start < len(data):
            for length in [*self._lengths.get(data[start : start + 2], []), 1]:
                found = self._ids.get(data[start : start + length])
                if found is not None:
                    ids.append(found)
                    start += length
                    break
        return ids

    def _decode(self, ids: list[int]) -> str:
        unused = [i for i in ids if i not in self._bytes and i != 0]
        if unused:
            raise ValueError(f"ids must be used ones, but {unused[0]} stands for no token.")
        return b"".join(self._bytes.get(i, b"") for i in ids).decode(errors="replace")

    def _bytes_of(self, token: int) -> bytes:
        return self._bytes.get(token, b"")
