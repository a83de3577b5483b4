"""What time it is, by three clocks."""

import time
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds, or a number of them.

    Args:
        wall: of the wall clock.
        process: that all threads of this process worked.
        thread: that this thread worked.
    """

    wall: float = 0.0
    process: float = 0.0
    thread: float = 0.0

    @classmethod
    def now(cls) -> Self:
        return cls(time.perf_counter(), time.process_time(), time.thread_time())

    def __sub__(self, other: Self) -> Self:
        return type(self)(
            self.wall - other.wall, self.process - other.process, self.thread - other.thread
        )
