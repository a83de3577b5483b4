"""A file of tokens that is mapped into memory, with a small header that guards it.

Layout, little-endian: the magic ``OARTOK01``, the length of the header (uint32), the header (JSON:
dtype, count, tokenizer, sha256 of the data), zeros up to a multiple of 64 bytes, the tokens.
"""

import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

MAGIC = b"OARTOK01"
_ALIGNMENT = 64
_DTYPES: dict[str, np.dtype] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
_CHUNK = 1 << 20  # tokens


class TokenFile:
    """The tokens of a file written by ``write_tokens``, mapped into memory.

    Args:
        path: the file.
        verify: also compare the checksum, which reads the whole file.

    Attributes:
        tokens: one-dimensional read-only array, uint16 or uint32.
        tokenizer: name of the tokenizer that made them, "" if none was given.
        sha256: checksum of the data.

    Raises:
        ValueError: the file is no token file, truncated, longer than its header says, or (with
            ``verify``) changed.
    """

    def __init__(self, path: str | os.PathLike, *, verify: bool = False):
        self.path = Path(path)
        header, offset = _read_header(self.path)
        dtype, count = _DTYPES[header["dtype"]], header["count"]
        expected, found = offset + count * dtype.itemsize, self.path.stat().st_size
        if found != expected:
            kind = "truncated" if found < expected else "too long"
            raise ValueError(
                f"{self.path} is {kind}: {count} {header['dtype']} tokens need {expected} bytes, "
                f"found {found}."
            )
        self.tokenizer: str = header["tokenizer"]
        self.sha256: str = header["sha256"]
        # np.memmap refuses an empty range
        self.tokens = (
            np.memmap(self.path, dtype=dtype, mode="r", offset=offset, shape=(count,))
            if count
            else np.empty(0, dtype)
        )
        if verify:
            self.verify()

    def verify(self) -> None:
        """Compare the data with the checksum of the header; ValueError if they differ."""
        digest = hashlib.sha256()
        for start in range(0, len(self.tokens), _CHUNK):
            digest.update(self.tokens[start : start + _CHUNK].tobytes())
        if digest.hexdigest() != self.sha256:
            raise ValueError(
                f"{self.path} is corrupt: sha256 of its tokens is {digest.hexdigest()}, "
                f"the header says {self.sha256}."
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index) -> np.ndarray:
        return self.tokens[index]

    def __repr__(self) -> str:
        return (
            f"TokenFile({str(self.path)!r}, {len(self):,} {self.tokens.dtype.name} tokens"
            f"{f' of {self.tokenizer}' if self.tokenizer else ''})"
        )


def write_tokens(
    path: str | os.PathLike,
    tokens: Iterable[int] | np.ndarray,
    *,
    tokenizer: str = "",
    dtype: str = "uint16",
) -> TokenFile:
    """Write tokens to ``path`` and return the mapped file; the file appears only when complete.

    Args:
        path: the file to write.
        tokens: token ids, an array or any iterable (consumed in pieces, so it may be long).
        tokenizer: name of the tokenizer, kept in the header.
        dtype: "uint16" (ids below 65536) or "uint32".

    Raises:
        ValueError: an id does not fit the dtype.
    """
    if dtype not in _DTYPES:
        raise ValueError(f"dtype must be one of {sorted(_DTYPES)}, got {dtype!r}.")
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    digest, count = hashlib.sha256(), 0
    try:
        with partial.open("wb") as file:
            _write_header(file, dtype, 0, tokenizer, "0" * 64)
            for piece in _pieces(tokens, _DTYPES[dtype]):
                data = piece.tobytes()
                digest.update(data)
                file.write(data)
                count += len(piece)
            file.seek(0)
            _write_header(file, dtype, count, tokenizer, digest.hexdigest())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return TokenFile(path)


def _write_header(file, dtype: str, count: int, tokenizer: str, sha256: str) -> None:
    # The count has a fixed width, so that the final header fits where the first one was.
    fields = {"dtype": dtype, "count": f"{count:016d}", "tokenizer": tokenizer, "sha256": sha256}
    header = json.dumps(fields).encode()
    start = len(MAGIC) + 4 + len(header)
    file.write(MAGIC + struct.pack("<I", len(header)) + header + bytes(-start % _ALIGNMENT))


def _read_header(path: Path) -> tuple[dict, int]:
    """Header and the offset of the tokens."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC) + 4)
        if start[: len(MAGIC)] != MAGIC:
            raise ValueError(
                f"{path} is not a token file: it begins with {start[:8]!r}, expected {MAGIC!r}."
            )
        if len(start) < len(MAGIC) + 4:
            raise ValueError(f"{path} is truncated: it ends inside its header.")
        (length,) = struct.unpack("<I", start[len(MAGIC) :])
        text = file.read(min(length, 1 << 20))
    if len(text) != length:
        raise ValueError(
            f"{path} is truncated: its header needs {length} bytes, found {len(text)}."
        )
    try:
        header = json.loads(text)
        header["count"] = int(header["count"])
        header["tokenizer"], header["sha256"]
        known = header["dtype"] in _DTYPES and header["count"] >= 0
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is corrupt: its header cannot be read ({error}).") from error
    if not known:
        raise ValueError(
            f"{path} is corrupt: its header says dtype {header['dtype']!r}, "
            f"count {header['count']}."
        )
    offset = len(start) + length
    return header, offset + -offset % _ALIGNMENT


def _pieces(tokens: Iterable[int] | np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
    """The tokens in arrays of limited size, each checked to fit ``dtype``."""
    position = 0
    for piece in _raw_pieces(tokens):
        if len(piece) and (piece.ndim != 1 or not np.issubdtype(piece.dtype, np.integer)):
            raise ValueError(
                f"tokens must be integers in one row, got {piece.dtype} of shape {piece.shape}."
            )
        limit = np.iinfo(dtype).max
        bad = np.flatnonzero((piece < 0) | (piece > limit))
        if len(bad):
            raise ValueError(
                f"tokens must be in 0..{limit} for dtype {dtype.name}, "
                f"got {piece[bad[0]]} at position {position + bad[0]}."
            )
        position += len(piece)
        yield piece.astype(dtype)


def _raw_pieces(tokens: Iterable[int] | np.ndarray) -> Iterator[np.ndarray]:
    if isinstance(tokens, np.ndarray):
        for start in range(0, len(tokens), _CHUNK):
            yield tokens[start : start + _CHUNK]
        return
    buffer: list[int] = []
    for token in tokens:
        buffer.append(token)
        if len(buffer) == _CHUNK:
            yield np.asarray(buffer)
            buffer = []
    if buffer:
        yield np.asarray(buffer)
