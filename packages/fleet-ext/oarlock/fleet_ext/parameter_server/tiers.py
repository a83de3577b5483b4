"""Records of which the ones in use are in memory, and the others in LMDB.

Who leaves memory is found by CLOCK: a hand goes round the places, takes the mark from each that was used since it came
by, and gives away the first without one.
"""

from collections.abc import Iterator

import lmdb
import numpy as np

from oarlock.fleet_ext.parameter_server.cold import ColdRows
from oarlock.fleet_ext.parameter_server.rows import Chunk

_FREE = np.int64(-1)


class TieredRows:
    """`Rows` with a limit of those in memory.

    Args:
        columns: numbers of a record.
        capacity: records in memory.
        cold: where the others are.
    """

    def __init__(self, columns: int, capacity: int, cold: ColdRows) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self._columns, self._capacity, self._cold = columns, capacity, cold
        self._forget()

    def take(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._find(keys, keep=True)

    def look(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._find(keys, keep=False)

    def put(self, keys: np.ndarray, records: np.ndarray) -> None:
        for begin in range(0, len(keys), self._capacity):
            part = slice(begin, begin + self._capacity)
            self._put(keys[part], records[part])

    def image(self) -> "TieredImage":
        places = np.fromiter(self._index.values(), np.int64, len(self._index))
        return TieredImage(
            self._keys[places],
            self._records[places],
            set(self._index),
            self._cold,
            self._cold.view(),
        )

    def clear(self) -> None:
        self._forget()
        self._cold.clear()

    def __len__(self) -> int:
        return len(self._index) + self._only_cold

    def _forget(self) -> None:
        self._index: dict[int, int] = {}
        self._keys = np.empty(self._capacity, np.int64)
        self._records = np.empty((self._capacity, self._columns), np.float32)
        self._used = np.zeros(self._capacity, np.bool_)  #: since the hand came by
        self._changed = np.zeros(self._capacity, np.bool_)  #: since it was read from the disk
        self._cold_too = np.zeros(self._capacity, np.bool_)  #: whether the disk has it, too
        self._hand = 0
        self._only_cold = 0

    def _find(self, keys: np.ndarray, *, keep: bool) -> tuple[np.ndarray, np.ndarray]:
        places = self._places(keys)
        here = places >= 0
        records = self._records[places]
        self._used[places[here]] = True
        found = here.copy()
        away = np.flatnonzero(~here)
        if len(away) and self._only_cold:
            read = np.empty((len(away), self._columns), np.float32)
            there = self._cold.get(keys[away], read)
            away, read = away[there], read[there]
            records[away] = read
            found[away] = True
            if keep:
                # Those beyond the room in memory would only drive each other out.
                self._bring(keys[away][: self._capacity], read[: self._capacity])
        return records, found

    def _put(self, keys: np.ndarray, records: np.ndarray) -> None:
        places = self._places(keys)
        away = np.flatnonzero(places < 0)
        if len(away):
            cold = np.zeros(len(away), np.bool_)
            if self._only_cold:
                cold = self._cold.get(keys[away], np.empty((len(away), self._columns), np.float32))
            pinned = places[places >= 0]
            places[away] = self._settle(keys[away], cold, pinned)
        self._records[places] = records
        self._used[places] = self._changed[places] = True

    def _bring(self, keys: np.ndarray, records: np.ndarray) -> None:
        """Into memory, from the disk."""
        if not len(keys):
            return
        places = self._settle(keys, np.ones(len(keys), np.bool_), np.empty(0, np.int64))
        self._records[places] = records
        self._used[places], self._changed[places] = True, False

    def _settle(self, keys: np.ndarray, cold: np.ndarray, pinned: np.ndarray) -> np.ndarray:
        """Places for keys that are not in memory.

        Args:
            cold: bool [n], whether the disk has them.
            pinned: places that must not be given away.
        """
        count = len(self._index)
        free = np.arange(count, min(count + len(keys), self._capacity))
        kept = np.concatenate([free, pinned])
        places = np.concatenate([free, self._emptied(len(keys) - len(free), kept)])
        self._keys[places] = keys
        self._cold_too[places] = cold
        self._only_cold -= int(cold.sum())
        self._index.update(zip(keys.tolist(), places.tolist(), strict=True))
        return places

    def _emptied(self, count: int, pinned: np.ndarray) -> np.ndarray:
        """Places whose records went to the disk; others than the pinned ones."""
        if count == 0:
            return np.empty(0, np.int64)
        places = self._victims(count, pinned)
        keys = self._keys[places]
        changed = places[self._changed[places] | ~self._cold_too[places]]
        self._cold.put(self._keys[changed], self._records[changed])
        for key in keys.tolist():
            del self._index[key]
        self._only_cold += count
        return places

    def _victims(self, count: int, pinned: np.ndarray) -> np.ndarray:
        kept = np.zeros(self._capacity, np.bool_)
        kept[pinned] = True
        found: list[np.ndarray] = []
        missing = count
        while missing:
            step = min(self._capacity, 2 * missing)
            window = (self._hand + np.arange(step)) % self._capacity
            self._hand = int(self._hand + step) % self._capacity
            chosen = window[~self._used[window] & ~kept[window]][:missing]
            self._used[window] = False
            kept[chosen] = True
            found.append(chosen)
            missing -= len(chosen)
        return np.concatenate(found)

    def _places(self, keys: np.ndarray) -> np.ndarray:
        find = self._index.get
        return np.fromiter((find(key, _FREE) for key in keys.tolist()), np.int64, len(keys))


class TieredImage:
    """Copies of what was in memory, and the file as it was at the same moment."""

    def __init__(
        self, keys: np.ndarray, records: np.ndarray, hot: set[int], cold: ColdRows,
        view: lmdb.Transaction,
    ) -> None:  # fmt: skip
        self._keys, self._records, self._hot = keys, records, hot
        self._cold, self._view = cold, view

    def chunks(self, most: int) -> Iterator[Chunk]:
        for begin in range(0, len(self._keys), most):
            yield self._keys[begin : begin + most], self._records[begin : begin + most]
        for keys, records in self._cold.chunks(self._view, most):
            only = np.fromiter((key not in self._hot for key in keys.tolist()), np.bool_, len(keys))
            if only.any():
                yield keys[only], records[only]

    def close(self) -> None:
        self._view.abort()
