"""Records on a server's disk, in LMDB. They are the server's own: what makes them last is the other copy of a shard."""

import fcntl
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import lmdb
import numpy as np

from oarlock.fleet_ext.parameter_server.rows import Chunk

_KEY = struct.Struct(
    ">HHQ"
)  #: shard, table, key with its sign's bit turned, in whose order they lie
_FLIP = 1 << 63
_READERS = 2048


class ColdStore:
    """A file of records of all tables of a server, empty when it is opened.

    Args:
        folder: of the server's own; what an earlier server left there is removed.
        most_bytes: that the file may have.

    Raises:
        ValueError: another server uses the folder.
    """

    def __init__(self, folder: Path, most_bytes: int = 64 << 30) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ValueError(f"folder {folder} is used by another server: give each its own") from None  # fmt: skip
        self._path = folder / "cold"
        shutil.rmtree(self._path, ignore_errors=True)
        # Nothing is flushed: after a crash the file is of no use anyway.
        self.environment = lmdb.open(
            str(self._path), map_size=most_bytes, sync=False, metasync=False, max_readers=_READERS
        )

    def close(self) -> None:
        self.environment.close()
        shutil.rmtree(self._path, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


class ColdRows:
    """The records of a shard's part of a table, in a `ColdStore`.

    Args:
        shard, table: numbers.
        columns: of a record.

    Raises of all methods:
        lmdb.Error: the disk is full, or fails.
    """

    def __init__(self, store: ColdStore, shard: int, table: int, columns: int) -> None:
        self._environment, self._columns = store.environment, columns
        self._place = (shard, table)
        self._begin = _KEY.pack(shard, table, 0)

    def get(self, keys: np.ndarray, records: np.ndarray) -> np.ndarray:
        """Fills in the records that there are; which those are, bool [n]."""
        found = np.zeros(len(keys), np.bool_)
        with self._environment.begin(buffers=True) as view:
            for row, key in enumerate(self._packed(keys)):
                value = view.get(key)
                if value is not None:
                    records[row] = np.frombuffer(value, np.float32)
                    found[row] = True
        return found

    def put(self, keys: np.ndarray, records: np.ndarray) -> None:
        with self._environment.begin(write=True) as change:
            for key, record in zip(self._packed(keys), records, strict=True):
                change.put(key, record.tobytes())

    def view(self) -> lmdb.Transaction:
        """The file as it is now, for `chunks`; to be aborted."""
        return self._environment.begin(buffers=True)

    def chunks(self, view: lmdb.Transaction, most: int) -> Iterator[Chunk]:
        keys: list[int] = []
        records = np.empty((most, self._columns), np.float32)
        for key, value in self._entries(view):
            records[len(keys)] = np.frombuffer(value, np.float32)
            keys.append(_KEY.unpack(key)[2] - _FLIP)
            if len(keys) == most:
                yield np.array(keys, np.int64), records.copy()
                keys.clear()
        if keys:
            yield np.array(keys, np.int64), records[: len(keys)].copy()

    def clear(self) -> None:
        with self._environment.begin(write=True) as change:
            for key in [bytes(key) for key, _ in self._entries(change)]:
                change.delete(key)

    def _entries(
        self, view: lmdb.Transaction
    ) -> Iterator[tuple[bytes | memoryview, bytes | memoryview]]:
        with view.cursor() as cursor:
            if not cursor.set_range(self._begin):
                return
            for key, value in cursor:
                if _KEY.unpack(key)[:2] != self._place:
                    return
                yield key, value

    def _packed(self, keys: np.ndarray) -> list[bytes]:
        return [_KEY.pack(*self._place, key + _FLIP) for key in keys.tolist()]
