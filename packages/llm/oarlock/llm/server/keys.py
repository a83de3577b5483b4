"""API keys."""

import hashlib
import hmac
import os
from collections.abc import Iterable
from pathlib import Path


class ApiKeys:
    """Keys of which a request must show one; only their hashes are kept.

    Args:
        keys: none lets everybody in.

    Raises:
        ValueError: a key is empty or holds spaces or other than ASCII.
    """

    def __init__(self, keys: Iterable[str] = ()):
        if isinstance(keys, str):
            raise ValueError("keys must be several, got one str; write [key].")
        found = list(keys)
        for number, key in enumerate(found, 1):
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                raise ValueError(
                    f"keys must be printable ASCII without spaces, but number {number} is not."
                )
        self._hashes = [_hash(key.encode()) for key in found]

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "ApiKeys":
        """One key a line; lines that are empty or begin with # do not count.

        Raises:
            ValueError: the file has none, or a malformed one.
        """
        lines = [line.strip() for line in Path(path).read_text().splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        if not keys:
            raise ValueError(f"{path} must hold a key a line, but holds none.")
        try:
            return cls(keys)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def __len__(self) -> int:
        return len(self._hashes)

    def admit(self, authorization: bytes | None) -> bool:
        """Whether a header ``Authorization: Bearer KEY`` holds one, in time that tells nothing of it."""
        if not self._hashes:
            return True
        scheme, _, key = (authorization or b"").partition(b" ")
        given = _hash(key.strip())
        matches = [hmac.compare_digest(given, known) for known in self._hashes]
        return scheme.lower() == b"bearer" and any(matches)


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
