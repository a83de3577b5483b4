"""A file that gives a restarted server its keys again.

Records are appended, each with its length and checksums, before they are answered. They are handed to the operating
system at once: a killed server loses nothing. With `durable` they are also on the disk (fsync) before the
answer, so a power failure loses nothing either; without, it may lose the last seconds. A record that was not
written to its end, by a kill or a power failure, was never answered and is cut off when the file is read.
"""

import fcntl
import logging
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from oarlock.fleet_ext.rendezvous.state import Record
from oarlock.fleet_ext.transport import objects

_log = logging.getLogger(__name__)

_MAGIC = b"oarlock store journal 1\n"
_HEAD = struct.Struct("<III")  # length, checksum of the record, checksum of these two
REWRITE_BYTES = 16 << 20  #: a journal this long is written anew when it has grown fourfold


class JournalError(RuntimeError):
    """A journal cannot be used; the message says where and why."""


class Journal:
    """
    Args:
        path: of the file, made where it is missing. Beside it there are a lock and, at times, a successor.
        durable: wait for the disk on each record.

    Raises:
        JournalError: it is no journal, it is damaged, or another server uses it.
    """

    def __init__(self, path: Path, *, durable: bool = False) -> None:
        self.path, self._durable = path, durable
        self._lock = open(path.with_name(path.name + ".lock"), "wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise JournalError(f"{path} is used by another server") from None
        try:
            self.found, self._size = _read(path)
            self._file: BinaryIO = open(path, "ab", buffering=0)
        except BaseException:
            self._lock.close()
            raise
        self._rewritten = self._size
        self._broken: OSError | None = None
        self._file.truncate(self._size)
        if self._size == 0:
            self._append(_MAGIC)

    def append(self, record: Record) -> None:
        """
        Raises:
            OSError: it could not be written, and is not there: the disk is full, or fails.
        """
        self._append(_packed(record))

    def grown(self) -> bool:
        """Whether it is worth to be written anew."""
        return self._size > max(REWRITE_BYTES, 4 * self._rewritten)

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replaces all that it has.

        Raises:
            OSError: it could not be written, and is as it was.
        """
        path = self.path.with_name(self.path.name + ".new")
        try:
            with open(path, "wb") as file:
                file.write(_MAGIC)
                for record in records:
                    file.write(_packed(record))
                file.flush()
                os.fsync(file.fileno())
            os.replace(path, self.path)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        folder = os.open(self.path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        self._file.close()
        self._file = open(self.path, "ab", buffering=0)
        self._size = self._rewritten = self.path.stat().st_size
        self._broken = None

    def close(self) -> None:
        self._file.close()
        self._lock.close()

    def _append(self, data: bytes) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            if self._durable:
                os.fsync(self._file.fileno())
        except OSError:
            try:
                self._file.truncate(self._size)
            except OSError as error:
                self._broken = error  # half a record is in it: nothing may follow
            raise
        self._size += len(data)


def _packed(record: Record) -> bytes:
    data = objects.dumps(record)
    head = _HEAD.pack(len(data), zlib.crc32(data), 0)[:-4]
    return head + zlib.crc32(head).to_bytes(4, "little") + data


def _read(path: Path) -> tuple[list[Record], int]:
    """The records of a journal, and where the last ends."""
    data = path.read_bytes() if path.exists() else b""
    if not data.startswith(_MAGIC):
        if _MAGIC.startswith(data):
            return [], 0
        raise JournalError(f"{path} is not a journal of a store: give another path")
    records, at = [], len(_MAGIC)
    while at < len(data):
        record, end = _record(path, data, at)
        if record is None:
            _log.warning("%s: its last record was not written to its end, and is cut off at byte %d", path, at)  # fmt: skip
            break
        records.append(record)
        at = end
    return records, at


def _record(path: Path, data: bytes, at: int) -> tuple[Record | None, int]:
    """The record at that byte, and where it ends; None for one that was not written to its end."""
    begin = at + _HEAD.size
    if begin > len(data):
        return None, at
    length, check, head_check = _HEAD.unpack_from(data, at)
    if zlib.crc32(data[at : begin - 4]) == head_check:
        if begin + length > len(data):
            return None, at
        body = data[begin : begin + length]
        if zlib.crc32(body) == check:
            return objects.loads(body), begin + length
    elif not data[at:].strip(b"\0"):
        return None, at  # a power failure can leave room that was never written
    raise JournalError(
        f"{path} is damaged at byte {at} of {len(data)}: restore it from a copy, move it away to begin with no keys, or "
        f"cut it there (truncate -s {at}) to lose that record and those after it"
    )
