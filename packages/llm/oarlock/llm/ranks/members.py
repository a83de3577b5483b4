"""What belongs to followers, and how they end."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

from oarlock.native.ranks import Ranks

from oarlock.llm.ranks import frames

END_S = 5.0  #: for followers to end by themselves


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until all ranks have heard the same."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    met: list[tuple[Any, ...]] = []
    signal.signal(signal.SIGINT, lambda *given: met.append(given))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if met:
        handler(*met[0])


class Members:
    """What belongs to the followers, to be given back whatever happens."""

    def __init__(self) -> None:
        self.links: dict[int, socket.socket] = {}
        self.processes: dict[int, subprocess.Popen] = {}
        self.peers: list[tuple[str, int]] = []
        self.server: socket.socket | None = None
        self.file: int | None = None
        self.ranks: Ranks | None = None

    def reasons(self) -> list[str]:
        """What followers said before they ended."""
        found = []
        for rank, link in self.links.items():
            try:
                if not select.select([link], [], [], 0.2)[0]:
                    continue
                link.settimeout(1.0)
                said, _ = frames.receive(link)
            except (OSError, EOFError, ValueError):
                continue
            if said.get("kind") == "failed":
                found.append(f"rank {rank} says {said['error']}")
        return found

    def end(self) -> None:
        """Close all connections, at which followers end, and kill those started here that do not."""
        for link in self.links.values():
            link.close()
        if self.server is not None:
            self.server.close()
        if self.file is not None:
            os.close(self.file)
            self.file = None
        until = time.monotonic() + END_S
        for process in self.processes.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
