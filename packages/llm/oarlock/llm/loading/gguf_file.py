"""The container of GGUF files: metadata and tensors, mapped into memory.

"GGUF", version (2 or 3), number of tensors and of metadata; key, type and value of each; name,
dimensions (fastest first), type and offset of each tensor; padding; the tensors. All little-endian.
Every length is compared with what the file has left before anything of that length is made, so that a
broken file costs no more than a few times its own size.

Source: github.com/ggml-org/ggml, ``docs/gguf.md``.
"""

import dataclasses
import math
import os
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from oarlock.llm.loading.blocks import FORMATS, BlockArray, BlockFormat
from oarlock.llm.loading.stored import Stored

MAGIC, VERSIONS = b"GGUF", (2, 3)
_NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 10: "<u8", 11: "<i8", 12: "<f8"}  # fmt: skip
_BOOL, _STRING, _ARRAY = 7, 8, 9
_FLOATS: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("<f2"),
    30: np.dtype(ml_dtypes.bfloat16),
}
MAX_DIMS, MAX_NAME = 4, 256


class _Cursor:
    """Reads a file's beginning piece by piece, and says which piece is not whole."""

    def __init__(self, content: memoryview, path: Path):
        self.content, self.path, self.at = content, path, 0

    def take(self, num_bytes: int, what: str) -> memoryview:
        end = self.at + num_bytes
        if end > len(self.content):
            raise ValueError(
                f"{self.path} is truncated or corrupt in {what}: expected {end} bytes or more, "
                f"found {len(self.content)}."
            )
        piece = self.content[self.at : end]
        self.at = end
        return piece

    def number(self, layout: str, what: str) -> Any:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout), what))[0]

    def count(self, smallest: int, what: str) -> int:
        """A number of things that take ``smallest`` bytes each at least."""
        found = self.number("Q", what)
        left = len(self.content) - self.at
        if found * smallest > left:
            raise ValueError(
                f"{self.path} is truncated or corrupt: it should have {found} {what}, which need "
                f"{found * smallest} bytes or more, but {left} are left."
            )
        return found

    def text(self, what: str) -> str:
        length = self.number("Q", what)
        try:
            return str(self.take(length, what), "utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path} is corrupt: {what} is no UTF-8 ({error}).") from error

    def value(self, kind: int, what: str) -> Any:
        if kind in _NUMBERS:
            dtype = np.dtype(_NUMBERS[kind])
            return np.frombuffer(self.take(dtype.itemsize, what), dtype)[0].item()
        if kind == _BOOL:
            return self.number("B", what) != 0
        if kind == _STRING:
            return self.text(what)
        if kind == _ARRAY:
            return self.array(self.number("I", what), what)
        raise ValueError(f"{self.path} is corrupt: {what} has the unknown type {kind}.")

    def array(self, kind: int, what: str) -> Any:
        if kind == _STRING:
            return [self.text(what) for _ in range(self.count(8, f"texts of {what}"))]
        if kind == _BOOL:
            return [bool(byte) for byte in self.take(self.count(1, what), what)]
        if kind not in _NUMBERS:
            raise ValueError(f"{self.path}: {what} must be numbers or texts, has type {kind}.")
        dtype = np.dtype(_NUMBERS[kind])
        length = self.count(dtype.itemsize, f"numbers of {what}")
        return np.frombuffer(self.take(length * dtype.itemsize, what), dtype).tolist()


@dataclasses.dataclass(frozen=True, slots=True)
class GGUFFile:
    """What a file holds.

    Args:
        path: of the file.
        metadata: values by key.
        tensors: by name; their bytes are read when they are asked for.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, Stored]


def read_gguf(path: str | os.PathLike) -> GGUFFile:
    """Read the metadata and map the tensors.

    Raises:
        ValueError: the file is truncated, corrupt, of another version or byte order, or has tensors
            of a type that is not read here; names the piece.
    """
    path = Path(path)
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty.")
    mapped = np.memmap(path, np.uint8, "r")
    cursor = _Cursor(memoryview(mapped.data), path)
    magic, version = bytes(cursor.take(4, "the header")), cursor.number("I", "the header")
    if magic != MAGIC or version not in VERSIONS:
        raise ValueError(
            f"{path} is no GGUF file of this machine's byte order and version {VERSIONS}: it begins "
            f"with {magic!r} and {version}."
        )
    num_tensors = cursor.count(24, "tensors")
    num_values = cursor.count(13, "entries of metadata")
    metadata: dict[str, Any] = {}
    for number in range(num_values):
        key = cursor.text(f"the key of metadata {number}")
        if key in metadata:
            raise ValueError(f"{path} is corrupt: {key!r} is there twice.")
        metadata[key] = cursor.value(cursor.number("I", key), key)
    infos = [_tensor_info(cursor, number) for number in range(num_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 8 or alignment % 8:
        raise ValueError(f"{path}: general.alignment must be a multiple of 8, got {alignment!r}.")
    begin = -(-cursor.at // alignment) * alignment
    tensors: dict[str, Stored] = {}
    for name, dims, kind, offset in infos:
        if name in tensors:
            raise ValueError(f"{path} is corrupt: tensor {name!r} is there twice.")
        tensors[name] = _tensor(path, mapped, name, dims, kind, begin + offset)
    return GGUFFile(path, metadata, tensors)


def _tensor_info(cursor: _Cursor, number: int) -> tuple[str, tuple[int, ...], int, int]:
    what = f"the description of tensor {number}"
    name = cursor.text(what)
    num_dims = cursor.number("I", what)
    if not 1 <= num_dims <= MAX_DIMS or len(name) > MAX_NAME:
        raise ValueError(
            f"{cursor.path} is corrupt: tensor {number} has {num_dims} dimensions and a name of "
            f"{len(name)} characters."
        )
    dims = tuple(cursor.number("Q", what) for _ in range(num_dims))
    if min(dims) < 1:
        raise ValueError(f"{cursor.path} is corrupt: tensor {name} has the dimensions {dims}.")
    return name, dims[::-1], cursor.number("I", what), cursor.number("Q", what)


def _tensor(
    path: Path, mapped: np.ndarray, name: str, shape: tuple[int, ...], kind: int, start: int
) -> Stored:
    form: np.dtype[Any] | BlockFormat
    if kind in _FLOATS:
        form = _FLOATS[kind]
        num_bytes = math.prod(shape) * _FLOATS[kind].itemsize
    elif kind in FORMATS:
        form = FORMATS[kind]
        if shape[-1] % form.num_values:
            raise ValueError(
                f"{path} is corrupt: rows of tensor {name} are {shape[-1]} long, which blocks of "
                f"{form.num_values} do not fill."
            )
        num_bytes = math.prod(shape) // form.num_values * form.num_bytes
    else:
        known = ["f32", "f16", "bf16", *(block.name for block in FORMATS.values())]
        raise ValueError(
            f"{path}: tensor {name} has type {kind}, which is not read; {', '.join(known)} are."
        )
    end = start + num_bytes
    if end > len(mapped):
        raise ValueError(
            f"{path} is truncated or corrupt: tensor {name} ends at byte {end}, found {len(mapped)}."
        )

    def read() -> np.ndarray | BlockArray:
        piece = np.asarray(mapped[start:end])
        if isinstance(form, BlockFormat):
            return BlockArray(format=form, rows=piece.reshape(math.prod(shape[:-1]), -1))
        return piece.view(form).reshape(shape)

    return Stored(name=name, shape=shape, format=form.name, num_bytes=num_bytes, read=read)
