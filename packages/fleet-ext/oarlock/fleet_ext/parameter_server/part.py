"""A shard's part of a table: rows, what they begin with, and the steps that are taken on them."""

import numpy as np

from oarlock.fleet_ext.parameter_server.layout import Table
from oarlock.fleet_ext.parameter_server.rows import Image, Rows


class Part:
    """
    Args:
        table: its specification.
        rows: that keep it.
    """

    def __init__(self, table: Table, rows: Rows) -> None:
        self._table, self._rows = table, rows

    def __len__(self) -> int:
        """Rows that were pushed or assigned."""
        return len(self._rows)

    def pull(self, keys: np.ndarray) -> np.ndarray:
        """Values for training.

        Args:
            keys: int64 [n].

        Returns:
            float32 [n, width].
        """
        unique, places = distinct(keys)
        return self._values(unique, *self._rows.take(unique))[places]

    def read(self, keys: np.ndarray) -> np.ndarray:
        """As `pull`, and moves nothing between memory and disk."""
        unique, places = distinct(keys)
        return self._values(unique, *self._rows.look(unique))[places]

    def push(self, keys: np.ndarray, gradients: np.ndarray) -> None:
        """Takes one step with the sum of each key's gradients.

        Args:
            gradients: float32 [n, width].
        """
        if not len(keys):
            return
        keys, gradients = summed(keys, gradients)
        records, found = self._rows.take(keys)
        if not found.all():
            records[~found] = self._fresh(keys[~found])
        self._table.optimizer.update(records, gradients)
        self._rows.put(keys, records)

    def assign(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Sets rows; their optimiser begins anew. The last of a key counts."""
        keys, values = _last(keys, values)
        records = np.empty((len(keys), self._table.record), np.float32)
        records[:, : self._table.width] = values
        self._table.optimizer.begin(records, self._table.width)
        self._rows.put(keys, records)

    def load(self, keys: np.ndarray, records: np.ndarray) -> None:
        """Sets rows and what their optimiser remembers, float32 [n, record]."""
        self._rows.put(*_last(keys, records))

    def image(self) -> Image:
        """All records of this moment."""
        return self._rows.image()

    def clear(self) -> None:
        self._rows.clear()

    def _values(self, keys: np.ndarray, records: np.ndarray, found: np.ndarray) -> np.ndarray:
        values = records[:, : self._table.width]
        if not found.all():
            values[~found] = self._table.initial.rows(keys[~found], self._table.width)
        return values

    def _fresh(self, keys: np.ndarray) -> np.ndarray:
        width = self._table.width
        records = np.empty((len(keys), self._table.record), np.float32)
        records[:, :width] = self._table.initial.rows(keys, width)
        self._table.optimizer.begin(records, width)
        return records


def distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray | slice]:
    """Sorted keys without repetition, and where each of the given ones is among them."""
    if (keys[1:] > keys[:-1]).all():
        return keys, slice(None)
    unique, places = np.unique(keys, return_inverse=True)
    return unique, places


def summed(keys: np.ndarray, gradients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted keys without repetition, and the sum of each one's gradients, in the order in which they came."""
    if (keys[1:] > keys[:-1]).all():
        return keys, gradients
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[begins], np.add.reduceat(gradients[order], begins, axis=0)


def _last(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if (keys[1:] > keys[:-1]).all():
        return keys, values
    unique, places = np.unique(keys[::-1], return_index=True)
    return unique, values[::-1][places]
