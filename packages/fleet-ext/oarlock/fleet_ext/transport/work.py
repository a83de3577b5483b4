"""Handles of operations that go on in the background."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Work(Generic[T]):
    """An operation that was begun; `wait` gives what came of it, or raises what went wrong."""

    __slots__ = ("_callbacks", "_error", "_lock", "_over", "_result", "_waiter")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = False
        self._waiter: threading.Lock | None = None
        self._result: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] | None = None

    def done(self) -> bool:
        """Whether it is over, well or not."""
        return self._over

    def wait(self, timeout: float | None = None) -> T:
        """The result.

        Args:
            timeout: seconds for this call only: the operation goes on.

        Raises:
            TransportError: the operation failed.
            TimeoutError: it is not over yet.
        """
        if not self.over_within(timeout):
            raise TimeoutError(f"not over after {timeout:g} s")
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]

    def over_within(self, timeout: float | None) -> bool:
        """Waits; whether it is over."""
        if self._over:
            return True
        with self._lock:
            if self._over:
                return True
            if self._waiter is None:
                self._waiter = threading.Lock()
                self._waiter.acquire()
            waiter = self._waiter
        # Who gets the lock hands it on, so that any number of threads can wait.
        if waiter.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            waiter.release()
            return True
        return self._over

    def finish(self, result: T) -> None:
        """Ends it well; does nothing where it is over."""
        self._end(result, None)

    def fail(self, error: BaseException) -> None:
        """Ends it with an error; does nothing where it is over."""
        self._end(None, error)

    def when_over(self, callback: Callable[[], None]) -> None:
        """Calls back from the thread that ends it; at once where it is over."""
        with self._lock:
            if not self._over:
                self._callbacks = [*(self._callbacks or ()), callback]
                return
        callback()

    def _end(self, result: T | None, error: BaseException | None) -> None:
        with self._lock:
            if self._over:
                return
            self._result, self._error = result, error
            self._over = True
            waiter, callbacks = self._waiter, self._callbacks
            self._callbacks = None
        if waiter is not None:
            waiter.release()
        for callback in callbacks or ():
            callback()
