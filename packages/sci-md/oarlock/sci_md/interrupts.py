"""Ctrl-C between steps, not within one."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Inside, the first SIGINT or SIGTERM is remembered (the function tells) and a second one acts at once.

    Outside the main thread, where handlers cannot be set, nothing is deferred.
    """
    asked = False
    if threading.current_thread() is not threading.main_thread():
        yield lambda: asked
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in before:
        signal.signal(number, remember)
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
