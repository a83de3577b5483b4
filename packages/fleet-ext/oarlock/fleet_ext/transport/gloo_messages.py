"""Messages between two ranks through gloo: for each direction between two ranks a group of its own.

A message in a gloo group of three or more ranks is counted by its two ends only, and the group's next operation hangs.
In a group of two, used in one direction, both ends count alike.
"""

import itertools
import queue
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np

from oarlock.fleet_ext.transport.connecting import KeyValues
from oarlock.fleet_ext.transport.errors import Aborted, TransportError
from oarlock.fleet_ext.transport.gloo_context import open_group, tensor_of
from oarlock.fleet_ext.transport.work import Work


class Messages:
    """The connections of one rank.

    Args:
        failed: called from a connection's thread when gloo fails.
    """

    def __init__(
        self, store: KeyValues, name: str, *, rank: int, size: int, host: str, timeout: float,
        failed: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        self._senders: dict[int, _Sender] = {}
        self._receivers: dict[int, _Receiver] = {}
        # All ranks in one order: in another, ranks in a ring could each wait for the next.
        for pair in itertools.combinations(range(size), 2):
            if rank not in pair:
                continue
            for source, to in (pair, pair[::-1]):
                group = open_group(
                    store, f"{name}/{source}-{to}", rank=int(rank == to), size=2, host=host,
                    timeout=timeout,
                )  # fmt: skip
                if rank == source:
                    self._senders[to] = _Sender(group, f"gloo {name} to {to}", failed)
                else:
                    self._receivers[source] = _Receiver(group, f"gloo {name} from {source}", failed)
        self._own: dict[int, deque[bytes]] = defaultdict(deque)
        self._rank = rank

    def send(self, view: np.ndarray, to: int, tag: int) -> None:
        data = view.tobytes()
        if to == self._rank:
            self._own[tag].append(data)
        else:
            self._senders[to].put((data, tag))

    def receive(self, view: np.ndarray, source: int, tag: int, work: Work[Any], out: Any) -> None:
        """Finishes the work with `out` when the message is in the view."""
        if source == self._rank:
            if not self._own[tag]:
                raise ValueError(f"source must have sent to itself before with tag {tag}")
            _fill(view, self._own[tag].popleft())
            work.finish(out)
        else:
            self._receivers[source].put((view, tag, work, out))

    def close(self) -> None:
        """After what was sent; what is waited for fails."""
        for sender in self._senders.values():
            sender.put(None)
            sender.thread.join()
        for receiver in self._receivers.values():
            receiver.close()


class _Connection:
    """One direction, and its thread."""

    def __init__(self, group: Any, name: str, failed: Callable[[Exception], None]) -> None:
        self._group, self._failed = group, failed
        self._jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.put = self._jobs.put
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                self._do(*job)
        except Exception as error:
            self._failed(error)

    def _do(self, *job: Any) -> None:
        raise NotImplementedError


class _Sender(_Connection):
    def _do(self, data: bytes, tag: int) -> None:
        self._group.send(tensor_of(np.array([tag, len(data)])), 1, True).wait()
        if data:
            payload = np.frombuffer(bytearray(data), np.uint8)
            self._group.send(tensor_of(payload), 1, True).wait()


class _Receiver(_Connection):
    def __init__(self, group: Any, name: str, failed: Callable[[Exception], None]) -> None:
        self._early: dict[int, deque[bytes]] = defaultdict(deque)
        self._waiting: Work[Any] | None = None
        super().__init__(group, name, failed)

    def _do(self, view: np.ndarray, tag: int, work: Work[Any], out: Any) -> None:
        self._waiting = work
        while not self._early[tag]:
            header = np.empty(2, np.int64)
            self._group.recv(tensor_of(header), 0, True).wait()
            payload = np.empty(int(header[1]), np.uint8)
            if payload.size:
                self._group.recv(tensor_of(payload), 0, True).wait()
            self._early[int(header[0])].append(payload.tobytes())
        _fill(view, self._early[tag].popleft())
        work.finish(out)

    def close(self) -> None:
        self.put(None)
        if self._waiting is not None:
            self._waiting.fail(Aborted("the group is closed"))  # where it is not over


def _fill(view: np.ndarray, data: bytes) -> None:
    if len(data) != view.nbytes:
        raise TransportError(
            f"{len(data)} bytes came where {view.nbytes} were expected: give both ends arrays of the same shape and type"
        )
    view.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
