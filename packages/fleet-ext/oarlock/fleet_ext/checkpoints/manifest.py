"""What is in a checkpoint: `manifest.json`, written last, with a checksum of itself.

{"format":"oarlock checkpoint","version":1,"sha256":"...","manifest":{"step":...,"ranks":...,
 "tensors":{name:{"dtype":...,"shape":[...],"pieces":[[rank,[offset,...],[length,...]],...]}},
 "files":{name:{"bytes":...,"sha256":...}},"metadata":[of each rank]}}
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oarlock.fleet_ext.checkpoints.agreement import CheckpointError
from oarlock.fleet_ext.checkpoints.files import Sum
from oarlock.fleet_ext.checkpoints.layout import Box, Stored
from oarlock.fleet_ext.transport import objects

NAME = "manifest.json"
VERSION = 1
_HEAD = re.compile(
    rb'\{"format":"oarlock checkpoint","version":(\d+),"sha256":"([0-9a-f]{64})","manifest":'
)


@dataclass(frozen=True, slots=True)
class Manifest:
    """
    Args:
        ranks: that wrote it.
        tensors: by name.
        files: by name; of each rank one.
        metadata: of each rank.
    """

    step: int
    ranks: int
    tensors: dict[str, Stored]
    files: dict[str, Sum]
    metadata: Sequence[Any]

    def dumps(self) -> bytes:
        """
        Raises:
            ValueError: metadata are not plain.
        """
        tensors = {
            name: {"dtype": one.dtype, "shape": list(one.shape),
                   "pieces": [[rank, list(box.offsets), list(box.shape)] for rank, box in one.pieces]}
            for name, one in self.tensors.items()
        }  # fmt: skip
        files = {name: asdict(one) for name, one in self.files.items()}
        body = objects.dumps({"step": self.step, "ranks": self.ranks, "tensors": tensors, "files": files,
                              "metadata": list(self.metadata)})  # fmt: skip
        head = f'{{"format":"oarlock checkpoint","version":{VERSION},"sha256":"{_digest(body)}","manifest":'
        return head.encode() + body + b"}"

    @classmethod
    def loads(cls, data: bytes) -> "Manifest":
        """
        Raises:
            CheckpointError: it is no manifest, it is damaged, or its version is not known.
        """
        head = _HEAD.match(data)
        if head is None:
            raise CheckpointError(f"{NAME} is torn: its first {min(len(data), 120)} bytes are not those of a manifest")  # fmt: skip
        if int(head[1]) != VERSION:
            raise CheckpointError(f"{NAME} has format version {int(head[1])}: this program reads version {VERSION}")  # fmt: skip
        body = data[head.end() : -1]
        if data[-1:] != b"}" or _digest(body) != head[2].decode():
            raise CheckpointError(f"{NAME} is torn: its checksum is not that of its {len(data)} bytes")  # fmt: skip
        found = objects.loads(body)
        tensors = {
            name: Stored(one["dtype"], tuple(one["shape"]), tuple(
                (rank, Box(tuple(offsets), tuple(shape))) for rank, offsets, shape in one["pieces"]))
            for name, one in found["tensors"].items()
        }  # fmt: skip
        files = {name: Sum(**one) for name, one in found["files"].items()}
        return cls(found["step"], found["ranks"], tensors, files, found["metadata"])

    @classmethod
    def read(cls, checkpoint: Path) -> "Manifest":
        """
        Raises:
            CheckpointError: as `loads`; or it is not there.
        """
        try:
            data = (checkpoint / NAME).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(f"{checkpoint} has no {NAME}") from None
        return cls.loads(data)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
