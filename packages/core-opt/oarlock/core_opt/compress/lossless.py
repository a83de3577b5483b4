r"""Bfloat16 weights in about 11 of their 16 bits, without any loss.

The exponents of trained weights take few values: their entropy :math:`H` is about 2.6 bits of the 8 that
they occupy, while sign and mantissa are as good as random. So a weight needs :math:`H + 8` bits, and
no coder of single weights gets below that. Here exponents get a prefix code (``prefix_code.py``), sign
and mantissa stay a byte.

>>> lossless.save(model.state_dict(), "model.safetensors")
>>> model.set_state_dict(lossless.load("model.safetensors"))

Every bit pattern comes back, NaN payloads included. The file is a safetensors file with checksums of
what it holds and of what that stands for.

Source: DFloat11, arXiv 2504.11651.
"""

import dataclasses
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import safetensors
import safetensors.numpy

from .. import _checks
from . import prefix_code
from .export import files
from .prefix_code import Code, Coded

FORMAT = "oarlock-lossless-1"
BLOCK = 1 << 24  #: weights that are coded together; memory and the work of a thread go with it
#: Arrays of a compressed tensor, one behind another in the file: wide ones first, so that none is split.
_PIECES = {"words": np.uint32, "lanes": np.uint16, "lengths": np.uint8, "escaped": np.uint8}


@dataclasses.dataclass(frozen=True, slots=True)
class Compressed:
    """Bfloat16 numbers, compressed.

    Args:
        count: of the numbers.
        code: of the exponents.
        blocks: the exponents of each ``BLOCK`` numbers.
        low: [count] uint8, sign and mantissa.
    """

    count: int
    code: Code
    blocks: tuple[Coded, ...]
    low: np.ndarray

    @property
    def num_bytes(self) -> int:
        """Bytes of all arrays."""
        parts = [part.nbytes for b in self.blocks for part in (b.lanes, b.words, b.escaped)]
        return len(_used(self.code)) + self.low.nbytes + sum(parts)


def exponents(bits: np.ndarray) -> np.ndarray:
    """The exponents of bfloat16 numbers given as uint16, uint8 of the same shape."""
    return (bits >> np.uint16(7)).astype(np.uint8)


def entropy(bits: np.ndarray) -> float:
    """Bits that the exponents of these bfloat16 numbers (uint16) have on average."""
    counts = np.bincount(exponents(bits).reshape(-1), minlength=256)
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum())


def compress(bits: np.ndarray, *, threads: int = 1) -> Compressed:
    """Compress bfloat16 numbers.

    Args:
        bits: uint16, of any shape with at least one number.
        threads: blocks that are coded at the same time; the result does not depend on it.
    """
    if bits.dtype != np.uint16 or not bits.size:
        raise ValueError(f"bits must be uint16 numbers, got {bits.dtype} of shape {bits.shape}.")
    _checks.whole("threads", threads, 1)
    bits = bits.reshape(-1)
    found = exponents(bits)
    code = prefix_code.best_code(np.bincount(found, minlength=256))
    with ThreadPoolExecutor(threads) as pool:
        parts = [found[at : at + BLOCK] for at in range(0, len(found), BLOCK)]
        blocks = tuple(pool.map(lambda part: prefix_code.encode(part, code), parts))
    low = ((bits >> np.uint16(8)) & np.uint16(0x80)) | (bits & np.uint16(0x7F))
    return Compressed(len(bits), code, blocks, low.astype(np.uint8))


def decompress(compressed: Compressed, *, threads: int = 1) -> np.ndarray:
    """The numbers that ``compress`` took, uint16 in one row.

    Raises:
        ValueError: the parts do not fit each other.
    """
    _checks.whole("threads", threads, 1)
    sizes = [min(BLOCK, compressed.count - at) for at in range(0, compressed.count, BLOCK)]
    if len(sizes) != len(compressed.blocks) or len(compressed.low) != compressed.count:
        raise ValueError(
            f"{compressed.count} numbers need {len(sizes)} blocks and as many low bytes, got"
            f" {len(compressed.blocks)} and {len(compressed.low)}."
        )
    out = np.empty(compressed.count, np.uint16)

    def fill(number: int) -> None:
        at, size = number * BLOCK, sizes[number]
        block, low = out[at : at + size], compressed.low[at : at + size]
        block[:] = prefix_code.decode(compressed.blocks[number], compressed.code, size)
        block <<= np.uint16(7)
        block |= low & np.uint8(0x7F)
        block |= (low & np.uint8(0x80)).astype(np.uint16) << np.uint16(8)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(len(sizes))))
    return out


def save(
    state: Mapping[str, paddle.Tensor], path: str | os.PathLike, *, threads: int = 1
) -> dict[str, float]:
    """Write tensors; the file appears only when complete.

    Tensors of bfloat16 are compressed where that makes them smaller, all others are stored as they are.

    Args:
        state: tensors by name, such as a ``state_dict``.
        path: of the file, in a folder that is there.
        threads: blocks that are coded at the same time.

    Returns:
        ``bytes_before``, ``bytes_after`` (the file) and ``bits_per_weight``.

    Raises:
        ValueError: an entry is no tensor, or of a type that safetensors cannot hold.
        WriteFailed: the operating system refused; nothing is left at ``path``.
    """
    target = files.target(path)
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, dict[str, Any]] = {}
    before = numbers = 0
    for name, tensor in state.items():
        if not isinstance(tensor, paddle.Tensor):
            raise ValueError(
                f"state[{name!r}] must be a paddle.Tensor, got {type(tensor).__name__}."
            )
        array = np.ascontiguousarray(tensor.numpy())  # uint16 for bfloat16
        dtype = str(tensor.dtype).removeprefix("paddle.")
        entry = {"dtype": dtype, "shape": list(tensor.shape), "crc32": _crc32(array)}
        before, numbers = before + array.nbytes, numbers + array.size
        stored = array
        if dtype == "bfloat16" and array.size:
            compressed = compress(array, threads=threads)
            if compressed.num_bytes < array.nbytes:
                stored, entry["coded"] = _joined(compressed)
        entry["stored"] = _crc32(stored)
        arrays[name], about[name] = stored, entry
    content = safetensors.numpy.save(
        arrays, metadata={"format": FORMAT, "tensors": json.dumps(about)}
    )
    with files.whole(target) as (part,):
        part.write_bytes(content)
    bits = 8 * len(content) / max(numbers, 1)
    return {"bytes_before": before, "bytes_after": len(content), "bits_per_weight": bits}


def load(path: str | os.PathLike, *, threads: int = 1) -> dict[str, paddle.Tensor]:
    """Tensors that ``save`` wrote, bit for bit, on the CPU.

    Raises:
        ValueError: the file is another, truncated or damaged; names the tensor.
    """
    path = Path(path)
    return dict(_tensors(path, _checks.whole("threads", threads, 1)))


def _tensors(path: Path, threads: int) -> Iterator[tuple[str, paddle.Tensor]]:
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is no {FORMAT} file; lossless.save writes them.")
            for name, entry in json.loads(metadata["tensors"]).items():
                yield name, _tensor(file, name, entry, path, threads)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size} bytes) is truncated or no safetensors file: {error}."
        ) from error
    except (json.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path} is damaged: its description is broken ({error!r}).") from error


def _tensor(file: Any, name: str, entry: Any, path: Path, threads: int) -> paddle.Tensor:
    array = file.get_tensor(name)
    if _crc32(array) != entry["stored"]:
        raise ValueError(f"{path} is damaged: the checksum of what is stored of {name} is wrong.")
    shape = tuple(entry["shape"])
    if "coded" in entry:
        compressed = _apart(array, entry["coded"], int(np.prod(shape, dtype=np.int64)))
        array = decompress(compressed, threads=threads)
    if _crc32(array) != entry["crc32"]:
        raise ValueError(f"{path} is damaged: the checksum of {name} is wrong.")
    return paddle.to_tensor(array.reshape(shape), dtype=entry["dtype"], place=paddle.CPUPlace())


def _used(code: Code) -> np.ndarray:
    """The lengths from the first byte with a code to the last one."""
    used = np.flatnonzero(code.lengths)
    return code.lengths[used[0] : used[-1] + 1]


def _joined(compressed: Compressed) -> tuple[np.ndarray, dict[str, Any]]:
    """All arrays one behind another, and what it takes to find them."""
    blocks, code = compressed.blocks, compressed.code
    pieces = {
        "words": np.concatenate([block.words for block in blocks]),
        "lanes": np.concatenate([block.lanes for block in blocks]),
        "lengths": _used(code),
        "escaped": np.concatenate([block.escaped for block in blocks]),
    }
    about = {
        "sizes": [len(pieces[key]) for key in _PIECES],
        "first": int(np.flatnonzero(code.lengths)[0]),
        "escape": code.escape,
        "escapes": [len(block.escaped) for block in blocks],
    }
    arrays = [*(pieces[key] for key in _PIECES), compressed.low]
    return np.concatenate([array.view(np.uint8) for array in arrays]), about


def _apart(stored: np.ndarray, about: Any, count: int) -> Compressed:
    """Undoes ``_joined``; ValueError if the sizes do not fit."""
    pieces, at = {}, 0
    for (key, kind), size in zip(_PIECES.items(), about["sizes"]):
        end = at + size * np.dtype(kind).itemsize
        pieces[key], at = np.ascontiguousarray(stored[at:end]).view(kind), end
    lengths, first = np.zeros(256, np.uint8), about["first"]
    lengths[first : first + len(pieces["lengths"])] = pieces["lengths"]
    words, lanes, escaped = pieces["words"], pieces["lanes"], pieces["escaped"]
    blocks = []
    for number, begin in enumerate(range(0, count, BLOCK)):
        taken = prefix_code.lanes_of(min(BLOCK, count - begin))
        size = int(lanes[:taken].sum(dtype=np.int64))
        rare = about["escapes"][number]
        blocks.append(Coded(lanes[:taken], words[:size], escaped[:rare]))
        lanes, words, escaped = lanes[taken:], words[size:], escaped[rare:]
    return Compressed(count, Code(lengths, about["escape"]), tuple(blocks), stored[at:])


def _crc32(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
