"""Operations of a gloo group, one after the other in a thread, watched by who waits for them."""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from oarlock.fleet_ext.transport.arguments import seconds_of
from oarlock.fleet_ext.transport.connecting import KeyValues
from oarlock.fleet_ext.transport.errors import Aborted, TimedOut, TransportError
from oarlock.fleet_ext.transport.work import Work

_LOOK_S = 0.5  #: after which who waits looks whether another rank aborted

T = TypeVar("T")


class GlooTimedOut(TimedOut):
    """An operation took too long; gloo does not tell which rank is missing."""

    def __init__(self, what: str, seconds: float) -> None:
        RuntimeError.__init__(
            self, f"{what} was not done in {seconds:g} s: gloo cannot tell which rank is missing"
        )
        self.missing, self.silent = (), ()


class Operations:
    """Of one group on one rank.

    Args:
        store: where an abort is told to the others.
        name: of the group.
        timeout: seconds for an operation where none is given.
    """

    def __init__(self, store: KeyValues, name: str, timeout: float) -> None:
        self._store, self._name, self._timeout = store, name, timeout
        self._abort_key = f"gloo/{name}/abort"
        self._lock = threading.Lock()
        self._pending: list[Work[Any]] = []
        self._error: TransportError | None = None
        self._closed = False
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"gloo {name}", daemon=True)
        self._thread.start()

    def begin(self, what: str, timeout: float | None, run: Callable[[], T]) -> Work[T]:
        """Queues an operation; its result is what it returns."""
        work: Work[T] = self.watched(what, timeout)

        def job() -> None:
            if work.done():
                return
            try:
                work.finish(run())
            except Exception as error:
                self.fail(error)

        self._jobs.put(job)
        return work

    def watched(self, what: str, timeout: float | None) -> Work[Any]:
        """Work that somebody else finishes, and that fails when the group does."""
        seconds = seconds_of(timeout, self._timeout)
        work: Work[Any] = _Watched(self, f"{what} of group {self._name}", seconds)
        with self._lock:
            if self._closed:
                raise ValueError(f"the group {self._name} is closed")
            error = self._error
            if error is None:
                self._pending = [one for one in self._pending if not one.done()] + [work]
        if error is not None:
            work.fail(error)
        return work

    def fail(self, error: Exception, *, tell: bool = True) -> None:
        """Breaks the group: all that goes on fails here, and on the other ranks when they next look."""
        told = error if isinstance(error, TransportError) else TransportError(f"gloo: {error}")
        with self._lock:
            if self._error is not None:
                return
            self._error = told
            pending, self._pending = self._pending, []
        if tell:
            self._store.set(self._abort_key, str(told).encode()[:4096])
        for work in pending:
            work.fail(told)

    def look(self) -> None:
        """Fails what goes on if another rank broke the group."""
        try:
            found = self._store.wait([self._abort_key], 0.0)
        except TimeoutError:
            return
        said = found[self._abort_key].decode(errors="replace")
        self.fail(Aborted(f"another rank said: {said}", elsewhere=True), tell=False)

    def close(self) -> None:
        """After what was begun, where nothing hangs."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        if self._error is None and threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class _Watched(Work[T]):
    """Work whose deadline, and whose group, are looked at by who waits for it."""

    __slots__ = ("_operations", "_seconds", "_until", "_what")

    def __init__(self, operations: Operations, what: str, seconds: float) -> None:
        super().__init__()
        self._operations, self._what, self._seconds = operations, what, seconds
        self._until = time.monotonic() + seconds

    def over_within(self, timeout: float | None) -> bool:
        end = self._until if timeout is None else min(self._until, time.monotonic() + timeout)
        while not super().over_within(min(_LOOK_S, end - time.monotonic())):
            now = time.monotonic()
            if now >= self._until:
                self._operations.fail(GlooTimedOut(self._what, self._seconds))
            elif now >= end:
                return False
            else:
                self._operations.look()
        return True
