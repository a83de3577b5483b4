"""Copies of tensors, from which they are written while training changes them."""

from collections.abc import Mapping

import numpy as np

from oarlock.fleet_ext.checkpoints.layout import Box, Local, Stored, shares


class Staging:
    """Copies of tensors in memory, which is kept for the next time: new memory is several times slower."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[np.ndarray, Box]] = {}

    def take(self, tensors: Mapping[str, Local], rank: int, size: int) -> int:
        """Copies what this rank may have to write: its share of what all ranks have, and all of its slices.

        Returns:
            how many bytes that are.
        """
        before, self._parts = self._parts, {}
        for name, one in tensors.items():
            box: Box | None = one.box
            if one.everywhere:
                all_shares = shares(name, one.box, one.array.dtype.name, range(size))
                box = dict(all_shares).get(rank)
            if box is None:
                continue
            source = box.view(one.array, one.box)
            memory = before[name][0] if name in before else None
            if memory is None or (memory.shape, memory.dtype) != (source.shape, source.dtype):
                memory = np.empty(source.shape, source.dtype)
            np.copyto(memory, source)
            self._parts[name] = (memory, box)
        return sum(memory.nbytes for memory, _ in self._parts.values())

    def parts(self, planned: Mapping[str, Stored], rank: int) -> dict[str, np.ndarray]:
        """What this rank writes."""
        found = {}
        for name, (memory, box) in self._parts.items():
            for writer, part in planned[name].pieces:
                if writer == rank:
                    found[name] = part.view(memory, box)
        return found
