"""Memory that two processes of one machine share, through which bytes stream one way.

The writer counts what it has written and the reader what it has taken, each in a cell of its own, so that nobody
needs a lock. Who waits sleeps for a moment, longer each time; a connection beside the ring wakes the reader for each message.
"""

import mmap
import os
import time
from collections.abc import Callable

import numpy as np

RING_BYTES = 8 << 20
_CELLS = 4096  #: bytes before the data: the two counters, on lines of their own
_STEP = 1 << 18  #: bytes at a time, so that one copies in while the other copies out
_SHORTEST_S, _LONGEST_S = 20e-6, 1e-3


class Ring:
    """One end of a ring.

    Args:
        descriptor: of a file in memory, made by `new_file`; closed here.
    """

    def __init__(self, descriptor: int) -> None:
        try:
            size = os.fstat(descriptor).st_size
            if size <= _CELLS:
                raise ValueError(f"a ring's file has more than {_CELLS} bytes, not {size}")
            self._memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        whole = np.frombuffer(self._memory, np.uint8)
        self._data: np.ndarray = whole[_CELLS:]
        self._written = whole[:8].view(np.uint64)
        self._taken = whole[64:72].view(np.uint64)

    def write(self, view: memoryview, alive: Callable[[], bool]) -> None:
        """
        Raises:
            ConnectionError: `alive` said no while the ring was full.
        """
        source, size, done = np.frombuffer(view, np.uint8), len(self._data), 0
        written = int(self._written[0])
        while done < len(source):
            free = self._wait(lambda: size - (written - int(self._taken[0])), alive)
            begin = written % size
            count = min(free, size - begin, len(source) - done, _STEP)
            np.copyto(self._data[begin : begin + count], source[done : done + count])
            done += count
            written += count
            self._written[0] = written

    def read(self, view: memoryview, alive: Callable[[], bool]) -> None:
        """Fills a view.

        Raises:
            ConnectionError: `alive` said no while there was nothing.
        """
        target, size, done = np.frombuffer(view, np.uint8), len(self._data), 0
        taken = int(self._taken[0])
        while done < len(target):
            there = self._wait(lambda: int(self._written[0]) - taken, alive)
            begin = taken % size
            count = min(there, size - begin, len(target) - done)
            np.copyto(target[done : done + count], self._data[begin : begin + count])
            done += count
            taken += count
            self._taken[0] = taken

    def close(self) -> None:
        """Gives the memory back; nobody may be in `read` or `write`."""
        empty = np.empty(0, np.uint8)
        self._data, self._written, self._taken = empty, empty.view(np.uint64), empty.view(np.uint64)
        self._memory.close()

    @staticmethod
    def _wait(available: Callable[[], int], alive: Callable[[], bool]) -> int:
        """How many bytes there are, once there are any."""
        pause = _SHORTEST_S
        while (count := available()) <= 0:
            if not alive():
                raise ConnectionError("the other process is gone")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_S)
        return count


def new_file(size: int = RING_BYTES) -> int:
    """A file in memory for a ring; its descriptor."""
    descriptor = os.memfd_create("oarlock-ring", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, _CELLS + size)
    return descriptor
