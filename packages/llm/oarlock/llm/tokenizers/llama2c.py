"""The tokenizer files of llama2.c: pieces of a SentencePiece BPE model and their scores."""

import heapq
import os
import re
import struct
from typing import Self

from oarlock.llm.tokenizers.base import Tokenizer, read

UNKNOWN, BOS, EOS, FIRST_BYTE = 0, 1, 2, 3  # ids; the 256 bytes follow
_BYTE = re.compile(rb"<0x([0-9A-F]{2})>")


class Llama2cTokenizer(Tokenizer):
    """BPE by scores: neighbours whose union has the best score are joined until none is left.

    As llama2.c does it: a space is put before the text (and taken away by ``decode``), characters
    without a piece are spelt in bytes.

    Args:
        pieces: bytes of each id: <unk>, <s>, </s>, 256 bytes as <0xHH>, then text.
        scores: one a piece.
    """

    adds_space = True

    def __init__(self, pieces: list[bytes], scores: list[float]):
        if len(pieces) != len(scores) or len(pieces) < FIRST_BYTE + 256:
            raise ValueError(
                f"pieces must be at least {FIRST_BYTE + 256} with a score each, "
                f"got {len(pieces)} and {len(scores)}."
            )
        for byte in (0, 255):
            if pieces[FIRST_BYTE + byte] != b"<0x%02X>" % byte:
                raise ValueError(
                    f"pieces[{FIRST_BYTE + byte}] must be <0x{byte:02X}>, "
                    f"got {pieces[FIRST_BYTE + byte]!r}."
                )
        self._pieces, self._scores = pieces, scores
        self._ids: dict[bytes, int] = {}
        for i in range(FIRST_BYTE + 256, len(pieces)):
            self._ids.setdefault(pieces[i], i)

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> Self:
        """Read ``tok*.bin``: the longest length, then score, length and bytes of each piece.

        Raises:
            ValueError: the file is truncated or another.
        """
        content = read(path)
        if len(content) < 4:
            raise ValueError(
                f"{path} is truncated: expected 4 bytes or more, found {len(content)}."
            )
        (longest,), at = struct.unpack_from("<i", content), 4
        pieces: list[bytes] = []
        scores: list[float] = []
        while at < len(content):
            end = at + 8
            score, length = (
                struct.unpack_from("<fi", content, at) if end <= len(content) else (0, 0)
            )
            if not 0 <= length <= max(longest, len("<0x00>")) + len("\n</s>\n"):
                raise ValueError(
                    f"{path} is corrupt: piece {len(pieces)} has length {length}, "
                    f"but the longest is {longest}."
                )
            end += length
            if end > len(content):
                raise ValueError(
                    f"{path} is truncated in piece {len(pieces)}: expected {end} bytes or more, "
                    f"found {len(content)}."
                )
            pieces.append(content[at + 8 : end])
            scores.append(score)
            at = end
        try:
            return cls(pieces, scores)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @property
    def vocab_size(self) -> int:
        return len(self._pieces)

    @property
    def pieces(self) -> tuple[bytes, ...]:
        """Bytes of each id, bytes themselves as <0xHH>."""
        return tuple(self._pieces)

    @property
    def scores(self) -> tuple[float, ...]:
        """Score of each id."""
        return tuple(self._scores)

    @property
    def special_tokens(self) -> dict[str, int]:
        return {"<unk>": UNKNOWN, "<s>": BOS, "</s>": EOS}

    def _encode(self, text: str) -> list[int]:
        if not text:
            return []
        ids: list[int] = []
        for character in " " + text:
            spelling = character.encode()
            found = self._ids.get(spelling)
            ids += [found] if found is not None else [FIRST_BYTE + byte for byte in spelling]
        return self._join(ids)

    def _join(self, ids: list[int]) -> list[int]:
        """Join the pair of the best score, the leftmost among equals, until none can be joined."""
        after = [*range(1, len(ids)), -1]
        before = [*range(-1, len(ids) - 1)]
        heap: list[tuple[float, int, int, int, int]] = []

        def offer(i: int) -> None:
            j = after[i] if i >= 0 else -1
            if j < 0:
                return
            joined = self._ids.get(self._pieces[ids[i]] + self._pieces[ids[j]])
            if joined is not None:
                heapq.heappush(heap, (-self._scores[joined], i, ids[i], ids[j], joined))

        for i in range(len(ids)):
            offer(i)
        while heap:
            _, i, left, right, joined = heapq.heappop(heap)
            j = after[i]
            if ids[i] != left or j < 0 or ids[j] != right:
                continue  # one of the two has been joined with another since
            ids[i], ids[j] = joined, -1
            after[i] = after[j]
            if after[j] >= 0:
                before[after[j]] = i
            offer(before[i])
            offer(i)
        return [token for token in ids if token >= 0]

    def _decode(self, ids: list[int]) -> str:
        out = [self._spelling(i) for i in ids]
        if ids and ids[0] == BOS:
            out = out[1:]
        return b"".join(out).removeprefix(b" ").decode(errors="replace")

    def _bytes_of(self, token: int) -> bytes:
        return b"" if token < FIRST_BYTE else self._spelling(token)

    def _spelling(self, token: int) -> bytes:
        byte = _BYTE.fullmatch(self._pieces[token])
        return bytes([int(byte[1], 16)]) if byte else self._pieces[token]
