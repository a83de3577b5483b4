"""What happened, as a bounded list in a store."""

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from oarlock.fleet_ext.rendezvous import Store

_log = logging.getLogger(__name__)
EVENTS, NUMBER = "telemetry/events/", "telemetry/number"
KEPT = 200
TEXT_CHARACTERS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    Args:
        time: seconds since 1970, by the clock of the node that says it.
        kind: one word: "epoch", "lost", "slow", "ready", "drain", "resize".
        node: who says it.
        text: for people.
        epoch, step: at which it happened, where that is known.
        nodes: who takes part from then on, of an epoch.
    """

    time: float
    kind: str
    node: str
    text: str
    epoch: int | None = None
    step: int | None = None
    nodes: tuple[str, ...] | None = None

    def pack(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class Events:
    """Writes events of one node; the latest of all nodes are kept.

    Args:
        store: which all nodes share.
        node: who says it.
        kept: events of all nodes together, at least 1.
    """

    def __init__(self, store: Store, node: str, kept: int = KEPT) -> None:
        if kept < 1:
            raise ValueError(f"kept must be at least 1, not {kept}")
        self._store, self._node, self._kept = store, node, kept

    def write(
        self, kind: str, text: str, *, epoch: int | None = None, step: int | None = None,
        nodes: Sequence[str] | None = None, at: float | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            at: seconds since 1970; now, if not given.

        Raises:
            StoreError: the store did not take it.
        """
        event = Event(
            time=time.time() if at is None else at, kind=kind, node=self._node,
            text=text[:TEXT_CHARACTERS], epoch=epoch, step=step, nodes=None if nodes is None else tuple(nodes),
        )  # fmt: skip
        number = self._store.add(NUMBER, 1)
        self._store.set(_key(number), event.pack())
        if number > self._kept:
            self._store.delete(_key(number - self._kept))


def read_events(values: Mapping[str, bytes]) -> list[Event]:
    """The events among a store's keys, in the order in which they were written.

    What is no event (another version's, say) is left out, and told to the log.
    """
    found = []
    for key in sorted(values):
        if key.startswith(EVENTS):
            try:
                given = json.loads(values[key])
                if not math.isfinite(given["time"]):
                    raise ValueError("it has no time")
                found.append(
                    Event(
                        time=float(given["time"]), kind=str(given["kind"]), node=str(given["node"]),
                        text=str(given["text"]), epoch=_whole(given["epoch"]),
                        step=_whole(given["step"]), nodes=None if given["nodes"] is None else tuple(map(str, given["nodes"])),
                    )  # fmt: skip
                )
            except (ValueError, KeyError, TypeError):
                _log.warning("the store's %s is no event: %.80r", key, values[key])
    return found


def _key(number: int) -> str:
    return f"{EVENTS}{number:012d}"


def _whole(value: object) -> int | None:
    return None if value is None else int(value)  # type: ignore[call-overload]
