"""How fast a node trains, written to the store in the background."""

import json
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from oarlock.fleet_ext.rendezvous import Store, StoreError
from oarlock.fleet_ext.telemetry.events import Events

_log = logging.getLogger(__name__)
NODES, SERIES = "telemetry/nodes/", "telemetry/series/"
EVERY_S = 0.5  #: at most so often a node writes what it does
SERIES_EVERY_S = 5.0  #: and the curve behind it
POINTS = 240  #: of a curve: when there are more, neighbours are merged
WAITING_EVENTS = 64
CLOSE_S = 2.0


class Publisher:
    """What a node tells of its training.

    `step` and `event` only note: a thread of its own writes, at most twice a second, and a store that is away harms nobody.
    The curve has at most `POINTS` points over the whole time: where more would come, neighbours become one.

    Args:
        store: which all nodes share.
        node: its name.
        every: seconds between two writings.
    """

    def __init__(self, store: Store, node: str, *, every: float = EVERY_S) -> None:
        if not every > 0:
            raise ValueError(f"every must be above 0 seconds, not {every}")
        self._store, self._node, self._every = store, node, every
        self._events = Events(store, node)
        self._changed, self._over = threading.Condition(), False
        self._steps = 0  #: since the beginning of this process
        self._begun = 0.0  #: when the first of them ended
        self._latest: dict[str, Any] = {}
        self._written: dict[str, Any] = self._latest
        self._waiting: deque[dict[str, Any]] = deque(maxlen=WAITING_EVENTS)
        self._curve = _Curve()
        self._thread = threading.Thread(target=self._write_all, name=f"telemetry {node}", daemon=True)  # fmt: skip
        self._thread.start()

    def step(self, step: int, *, loss: float | None = None, epoch: int | None = None) -> None:
        """A step was taken. Call it once per step; a loss that is not finite is shown as text.

        Args:
            step: its number.
        """
        with self._changed:
            if self._steps == 0:
                self._begun = time.monotonic()
            self._steps += 1
            self._latest = {"step": int(step), "epoch": epoch, "loss": loss}
            self._changed.notify()

    def epoch(
        self, number: int, nodes: Sequence[str], why: str, *, step: int, seconds: float
    ) -> None:
        """Other nodes train from now on. One of them says it.

        Args:
            nodes: in the order of ranks.
            why: what was noticed.
            step: which is taken next.
            seconds: from the notice until training went on.
        """
        text = f"{why}: {len(nodes)} nodes go on with step {step} after {seconds:.2f} s"
        self._note({"kind": "epoch", "text": text, "epoch": number, "step": step, "nodes": nodes})

    def event(self, kind: str, text: str, *, epoch: int | None = None, step: int | None = None) -> None:  # fmt: skip
        """Something happened; of those that wait for the store only the latest are kept."""
        self._note({"kind": kind, "text": text, "epoch": epoch, "step": step})

    def _note(self, event: dict[str, Any]) -> None:
        with self._changed:
            self._waiting.append({**event, "at": time.time()})
            self._changed.notify()

    def close(self) -> None:
        """Writes what waits, for two seconds at most."""
        with self._changed:
            self._over = True
            self._changed.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(CLOSE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def _write_all(self) -> None:
        counted, since, drawn, over = 0, 0.0, -math.inf, False
        while not over:
            with self._changed:
                self._changed.wait_for(lambda: self._over or self._waiting or self._steps > counted)
                self._changed.wait_for(lambda: self._over, self._every)
                over, steps, latest = self._over, self._steps, self._latest
                if counted == 0 and steps:
                    counted, since = 1, self._begun  # how long the first one took is not known
            now = time.monotonic()
            try:
                self._write_events()
                if steps and latest is not self._written:
                    rate = (steps - counted) / max(now - since, 1e-6) if steps > counted else None
                    if rate is not None:
                        self._curve.add(time.time(), rate, latest["loss"])
                        counted, since = steps, now
                    said = {**latest, "loss": _plain(latest["loss"]), "rate": rate, "time": time.time()}  # fmt: skip
                    self._store.set(NODES + self._node, json.dumps(said).encode())
                    self._written = latest
                    if over or now >= drawn + SERIES_EVERY_S:
                        drawn = now
                        self._store.set(SERIES + self._node, self._curve.pack())
            except (StoreError, ValueError) as error:
                _log.debug("telemetry of node %s was not written: %s", self._node, error)

    def _write_events(self) -> None:
        while self._waiting:
            self._events.write(**self._waiting[0])
            with self._changed:
                if self._waiting:
                    self._waiting.popleft()


class _Curve:
    """Steps a second and losses over time, in a bounded number of points."""

    def __init__(self) -> None:
        self._points: list[tuple[float, float, float | None]] = []
        self._merged, self._open = 1, 0  #: values in a point, and in the last one

    def add(self, at: float, rate: float, loss: float | None) -> None:
        loss = loss if loss is not None and math.isfinite(loss) else None
        if self._open and self._open < self._merged:
            before = self._points[-1]
            share = 1 / (self._open + 1)
            self._points[-1] = (at, before[1] + share * (rate - before[1]), loss)
            self._open += 1
            return
        self._points.append((at, rate, loss))
        self._open = 1
        if len(self._points) >= POINTS:
            pairs = zip(self._points[::2], self._points[1::2])
            self._points = [(b[0], (a[1] + b[1]) / 2, b[2]) for a, b in pairs]
            self._merged *= 2
            self._open = self._merged

    def pack(self) -> bytes:
        rounded = [(round(at, 2), round(rate, 4), loss) for at, rate, loss in self._points]
        return json.dumps(rounded).encode()


def _plain(loss: float | None) -> float | str | None:
    """JSON has no infinities."""
    return loss if loss is None or math.isfinite(loss) else str(loss)
