"""Files of tensors, in the format of safetensors, and what makes them last.

They are written here, in one pass that computes the checksum, shows progress and tells the system's own errors; the
library reads them.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from oarlock.fleet_ext.checkpoints.layout import CODES, DTYPES
from oarlock.fleet_ext.transport.arrays import as_bytes

CHUNK_BYTES = 4 << 20
_HEAD = struct.Struct("<Q")  # length of the header


@dataclass(frozen=True, slots=True)
class Sum:
    """What a file must be: its bytes, and their SHA-256 in hexadecimal digits."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Request:
    """A part of a tensor in a file, and the memory of the same shape that it goes to."""

    name: str
    slices: tuple[slice, ...]
    target: np.ndarray


def file_of(rank: int) -> str:
    """A rank's file."""
    return f"rank-{rank:05d}.safetensors"


def write_tensors(
    path: Path, tensors: Mapping[str, np.ndarray], wrote: Callable[[int], None]
) -> Sum:
    """A new file of tensors, on the disk when it returns.

    Args:
        wrote: called with bytes, now and then.

    Raises:
        OSError: it is there already, or the disk is full, or fails.
    """
    # Large elements first, so that all lie at multiples of their size.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header, end = {}, 0
    for name in names:
        one = tensors[name]
        header[name] = {"dtype": CODES[one.dtype.name], "shape": one.shape,
                        "data_offsets": [end, end + one.nbytes]}  # fmt: skip
        end += one.nbytes
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    checksum, size = hashlib.sha256(), 0
    with open(path, "xb") as file:
        for data in (_HEAD.pack(len(head)), head, *(tensors[name] for name in names)):
            view = (
                memoryview(data)
                if isinstance(data, bytes)
                else as_bytes(np.ascontiguousarray(data))
            )
            for start in range(0, len(view), CHUNK_BYTES):
                chunk = view[start : start + CHUNK_BYTES]
                file.write(chunk)
                checksum.update(chunk)
                size += len(chunk)
                if not isinstance(data, bytes):
                    wrote(len(chunk))
        _settle(file.fileno(), file.flush)
    return Sum(size, checksum.hexdigest())


def write_bytes(path: Path, data: bytes) -> None:
    """A new file, on the disk when it returns.

    Raises:
        OSError: as `write_tensors`.
    """
    with open(path, "xb") as file:
        file.write(data)
        _settle(file.fileno(), file.flush)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sum_of(path: Path) -> Sum:
    """
    Raises:
        OSError: it is not there, or cannot be read.
    """
    with open(path, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256")
        return Sum(file.tell(), checksum.hexdigest())


def read_tensors(path: Path, requests: Iterable[Request]) -> int:
    """Parts of tensors into memory, of which only their own bytes are read.

    Returns:
        how many bytes that were.

    Raises:
        OSError, SafetensorError, ValueError: the file is not there, or not what it should be.
    """
    size = 0
    with safe_open(path, framework="numpy") as file:
        for one in requests:
            whole = file.get_slice(one.name)
            found = np.asarray(whole[one.slices] if one.slices else file.get_tensor(one.name))
            if found.dtype != one.target.dtype:
                found = found.view(DTYPES[one.target.dtype.name])
            if found.shape != one.target.shape:
                raise ValueError(
                    f"{path.name} has {found.shape} of tensor {one.name!r}, not {one.target.shape}"
                )
            one.target[...] = found
            size += found.nbytes
    return size


def _settle(number: int, flush: Callable[[], None]) -> None:
    """Waits for the disk, and asks the system not to keep what will hardly be read, so that a check reads the disk."""
    flush()
    os.fsync(number)
    os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
