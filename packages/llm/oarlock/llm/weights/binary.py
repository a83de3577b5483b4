"""Reading binary files piece by piece, naming the piece that is not whole."""

import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np


class BinaryFile:
    """A file mapped into memory and read from start to end.

    Raises (all methods):
        ValueError: the file ends too early, or goes on after its end; names the file, the piece,
            the bytes expected and found.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.size = self.path.stat().st_size
        # np.memmap refuses an empty file
        self._bytes = np.memmap(self.path, np.uint8, "r") if self.size else np.empty(0, np.uint8)
        self.position = 0

    def take(self, num_bytes: int, what: str) -> np.ndarray:
        """The next bytes, for the piece ``what``."""
        end = self.position + num_bytes
        if end > self.size:
            raise ValueError(
                f"{self.path} is truncated in {what}: expected {end} bytes or more, "
                f"found {self.size}."
            )
        piece = self._bytes[self.position : end]
        self.position = end
        return piece

    def numbers(self, layout: str, what: str) -> tuple[Any, ...]:
        """The next numbers in a ``struct`` layout, little-endian."""
        layout = f"<{layout}"
        return struct.unpack(layout, self.take(struct.calcsize(layout), what).tobytes())

    def array(self, shape: tuple[int, ...], dtype: str, what: str) -> np.ndarray:
        """The next tensor: a view of the file, or a copy where it lies at an odd address."""
        kind = np.dtype(dtype)
        start = self.position
        piece = self.take(kind.itemsize * math.prod(shape), what)
        if start % kind.itemsize:
            return np.frombuffer(piece.tobytes(), kind).reshape(shape)
        return np.asarray(piece).view(kind).reshape(shape)

    def end(self) -> None:
        """There must be nothing left."""
        if self.position != self.size:
            raise ValueError(
                f"{self.path} is too long: its header describes {self.position} bytes, "
                f"found {self.size}."
            )
