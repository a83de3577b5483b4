"""Safetensors files, written a tensor at a time.

Eight bytes of the header's length; the header, a JSON object of each tensor's type, shape and place, filled up with
spaces; the tensors. The library ``safetensors`` wants all of them in memory at once, and bfloat16 not from NumPy.

Source: github.com/huggingface/safetensors, ``README.md`` (format).
"""

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oarlock.llm.writing.tensors import Tensor

_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
INDEX = "model.safetensors.index.json"


def write(
    folder: Path,
    tensors: Sequence[Tensor],
    content: Callable[[Tensor], NDArray[Any]],
    *,
    most_bytes: int,
) -> None:
    """Write ``model.safetensors``, or several files and their index.

    Args:
        folder: that is there.
        tensors: of floats.
        content: gives a tensor's values when its turn comes.
        most_bytes: of a file, but for one tensor that is larger.
    """
    shards: list[list[Tensor]] = [[]]
    held = 0
    for tensor in tensors:
        if shards[-1] and held + tensor.num_bytes > most_bytes:
            shards.append([])
            held = 0
        shards[-1].append(tensor)
        held += tensor.num_bytes
    if len(shards) == 1:
        _write(folder / "model.safetensors", shards[0], content)
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write(folder / name, shard, content)
        places |= dict.fromkeys((tensor.name for tensor in shard), name)
    total = sum(tensor.num_bytes for tensor in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write(
    path: Path, tensors: Sequence[Tensor], content: Callable[[Tensor], NDArray[Any]]
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.num_bytes
        header[tensor.name] = {
            "dtype": _TYPES[tensor.kind],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            values = np.ascontiguousarray(content(tensor))
            assert values.nbytes == tensor.num_bytes
            file.write(values.view(np.uint8).reshape(-1).data)
