"""What a serving fleet keeps in its store, and how to ask it for something.

| key | value | with whose lease |
|---|---|---|
| `serving/wanted` | how many replicas answer | none |
| `serving/slots/N` | the node that has to keep the N-th of them | the node's |
| `serving/nodes/NODE` | what that node could take on | the node's |
| `serving/replicas/ID` | a replica: where it listens, and what it is for now | its node's |
| `serving/routers/ID` | what a router sees and has running | the router's |
| `serving/drains/ID` | a replica that somebody wants out of use | none |
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from oarlock.fleet_ext.rendezvous import Store

_log = logging.getLogger(__name__)
ALL = "serving/"
WANTED = ALL + "wanted"
SLOTS, NODES, REPLICAS = ALL + "slots/", ALL + "nodes/", ALL + "replicas/"
ROUTERS, DRAINS = ALL + "routers/", ALL + "drains/"
MOST = 1024  #: replicas

State = Literal["starting", "spare", "ready", "draining"]
STATES: tuple[State, ...] = ("starting", "spare", "ready", "draining")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A process that answers requests.

    Args:
        id: which no other process ever has.
        node: on which it runs.
        host, port: where it listens.
        state: routers send requests to those that are "ready", and let end what they sent to those that are "draining".
        slot: which of the wanted replicas it is, if any.
    """

    id: str
    node: str
    host: str
    port: int
    state: State
    slot: int | None = None

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state must be one of {', '.join(STATES)}, not {self.state!r}")
        if not 0 < self.port < 65536:
            raise ValueError(f"port must be from 1 to 65535, not {self.port}")

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """
    Args:
        capacity: processes that it may run for slots.
        warm: replicas that could answer at once, but have no slot.
    """

    capacity: int
    warm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a router does with a replica.

    Args:
        state: of the replica, as the router knows it.
        running: requests.
        quiet: seconds for which none of them has got on, if any runs.
    """

    state: State
    running: int
    quiet: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a router says of itself.

    Args:
        address: where it listens.
        uses: by replica.
        waiting: requests that wait for a replica.
        answered, failed: requests since it began.
    """

    address: str
    uses: Mapping[str, Use] = field(default_factory=dict)
    waiting: int = 0
    answered: int = 0
    failed: int = 0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        return cls(**{**given, "uses": {id: Use(**use) for id, use in given["uses"].items()}})


def pack(record: Replica | Node | Report) -> bytes:
    return json.dumps(asdict(record)).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A store's keys, read. What is malformed is left out, and told to the log."""

    wanted: int | None
    slots: Mapping[int, str]
    nodes: Mapping[str, Node]
    replicas: Mapping[str, Replica]
    routers: Mapping[str, Report]
    drains: frozenset[str]

    @classmethod
    def of(cls, values: Mapping[str, bytes]) -> Self:
        slots: dict[int, str] = {}
        nodes: dict[str, Node] = {}
        replicas: dict[str, Replica] = {}
        routers: dict[str, Report] = {}
        wanted, drains = None, set()
        for key, value in values.items():
            try:
                if key == WANTED:
                    wanted = count(int(value))
                elif key.startswith(SLOTS):
                    slots[int(key.removeprefix(SLOTS))] = value.decode()
                elif key.startswith(NODES):
                    nodes[key.removeprefix(NODES)] = Node(**json.loads(value))
                elif key.startswith(REPLICAS):
                    replicas[key.removeprefix(REPLICAS)] = Replica(**json.loads(value))
                elif key.startswith(ROUTERS):
                    routers[key.removeprefix(ROUTERS)] = Report.of(json.loads(value))
                elif key.startswith(DRAINS):
                    drains.add(key.removeprefix(DRAINS))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                _log.warning("the store's %s is malformed: %s", key, error)
        return cls(wanted=wanted, slots=slots, nodes=nodes, replicas=replicas, routers=routers,
                   drains=frozenset(drains))  # fmt: skip

    def quiet(self, id: str) -> float:
        """Seconds for which no request of a replica has got on, as the routers say."""
        return max((one.uses[id].quiet for one in self.routers.values() if id in one.uses), default=0.0)  # fmt: skip

    def left(self, id: str) -> bool:
        """Whether all routers know that a replica is draining, and none has requests there."""
        uses = [one.uses.get(id) for one in self.routers.values()]
        return all(use is not None and use.state == "draining" and use.running == 0 for use in uses)


class Fleet:
    """Looks at a serving fleet, and asks it for something.

    >>> fleet = Fleet(store)
    >>> fleet.rescale(4)
    >>> fleet.drain("host-3-7")                                # another one takes its place

    Args:
        store: the fleet's.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def view(self) -> View:
        """What is there now."""
        return View.of(self._store.read(ALL)[1])

    def rescale(self, replicas: int) -> None:
        """Wants so many replicas: nodes start more, or drain those that are too many."""
        self._store.set(WANTED, str(count(replicas)).encode())

    def drain(self, replica: str) -> None:
        """Wants a replica out of use: another one first takes its place where there is room, and its requests end.

        Raises:
            ValueError: there is none of that name.
        """
        there = self.view().replicas
        if replica not in there:
            raise ValueError(f"replica must be one of {', '.join(sorted(there))}, not {replica!r}")
        self._store.set(DRAINS + replica, b"")


def count(replicas: int) -> int:
    if isinstance(replicas, bool) or not isinstance(replicas, int) or not 0 <= replicas <= MOST:
        raise ValueError(f"replicas must be from 0 to {MOST}, not {replicas!r}")
    return replicas
