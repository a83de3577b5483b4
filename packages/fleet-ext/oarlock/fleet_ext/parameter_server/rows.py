"""Records by key in memory: one array that grows, and an index of places in it."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

_FIRST = 64  #: records for which there is memory at the beginning

Chunk = tuple[np.ndarray, np.ndarray]  #: keys int64 [n], records float32 [n, columns]


class Image(Protocol):
    """All records of one moment, which does not change while the rows do."""

    def chunks(self, most: int) -> Iterator[Chunk]:
        """The records, at most so many at a time; each key once."""

    def close(self) -> None:
        """Gives back what it holds."""


class Rows(Protocol):
    """Records by key. Keys of one call are distinct. Nothing here locks: one thread at a time."""

    def take(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Copies of records that are about to be used: they are kept where they are found fast.

        Args:
            keys: int64 [n].

        Returns:
            records float32 [n, columns], and bool [n]: which there are. Others' numbers mean nothing.
        """

    def look(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `take`, and moves nothing."""

    def put(self, keys: np.ndarray, records: np.ndarray) -> None:
        """Sets records."""

    def image(self) -> Image:
        """What is there now."""

    def clear(self) -> None:
        """Forgets all."""

    def __len__(self) -> int: ...


class CopiedImage:
    """An image whose records were copied."""

    def __init__(self, keys: np.ndarray, records: np.ndarray) -> None:
        self._keys, self._records = keys, records

    def chunks(self, most: int) -> Iterator[Chunk]:
        for begin in range(0, len(self._keys), most):
            yield self._keys[begin : begin + most], self._records[begin : begin + most]

    def close(self) -> None:
        pass


class MemoryRows:
    """All records in memory.

    Args:
        columns: numbers of a record.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self.clear()

    def take(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places = self._places(keys)
        return self._records[places], places >= 0

    look = take

    def put(self, keys: np.ndarray, records: np.ndarray) -> None:
        places = self._places(keys)
        fresh = np.flatnonzero(places < 0)
        if len(fresh):
            count = len(self._index)
            self._grow(count + len(fresh))
            places[fresh] = np.arange(count, count + len(fresh))
            self._keys[count : count + len(fresh)] = keys[fresh]
            self._index.update(zip(keys[fresh].tolist(), places[fresh].tolist(), strict=True))
        self._records[places] = records

    def image(self) -> CopiedImage:
        count = len(self._index)
        return CopiedImage(self._keys[:count].copy(), self._records[:count].copy())

    def clear(self) -> None:
        self._index: dict[int, int] = {}
        self._keys = np.empty(_FIRST, np.int64)
        self._records = np.empty((_FIRST, self._columns), np.float32)

    def __len__(self) -> int:
        return len(self._index)

    def _places(self, keys: np.ndarray) -> np.ndarray:
        find = self._index.get
        return np.fromiter((find(key, -1) for key in keys.tolist()), np.int64, len(keys))

    def _grow(self, count: int) -> None:
        if count <= len(self._keys):
            return
        room = max(count, 2 * len(self._keys))
        used = len(self._index)
        keys, records = self._keys, self._records
        self._keys = np.empty(room, np.int64)
        self._records = np.empty((room, self._columns), np.float32)
        self._keys[:used], self._records[:used] = keys[:used], records[:used]
