"""What the nodes of a drill are told."""

import json
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    Args:
        width: of the hidden layer.
        batch: of all nodes together.
        lease, operation: of `enter`.
        folder: for checkpoints; empty for none.
        every: steps between two.
    """

    width: int = 512
    batch: int = 96
    lease: float = 1.0
    operation: float = 2.0
    folder: str = ""
    every: int = 50

    def pack(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def unpack(cls, packed: str) -> Self:
        return cls(**json.loads(packed))
