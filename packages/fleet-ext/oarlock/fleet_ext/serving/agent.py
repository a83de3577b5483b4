"""A node of a serving fleet: it takes slots, keeps a replica in each, and has others warm.

Slots are the wanted replicas, numbered. A node claims those that nobody has, and loses them when its lease ends, so that
another takes them: there is no leader. Within a node a replica that died or hangs is replaced by a warm one at once.
"""

import contextlib
import functools
import itertools
import logging
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from oarlock.fleet_ext.children import Lines
from oarlock.fleet_ext.rendezvous import Store
from oarlock.fleet_ext.serving import records
from oarlock.fleet_ext.serving.claims import better_elsewhere, claimable
from oarlock.fleet_ext.serving.crew import Crew, Loss, Member, NeverAnswered, Patience
from oarlock.fleet_ext.serving.mirror import Mirror
from oarlock.fleet_ext.serving.process import Command
from oarlock.fleet_ext.serving.records import Node, View, pack
from oarlock.fleet_ext.serving.registration import LEASE_S, Registration
from oarlock.fleet_ext.telemetry import Events

_log = logging.getLogger(__name__)
_TICK_S = 0.05


class Agent:
    """
    Args:
        store: which all nodes and routers share.
        command: of a replica.
        node: this node's name, which no other has.
        replicas: how many are wanted in the fleet, unless the store says so already.
        spares: warm replicas of this node.
        capacity: replicas with slots that this node may have; `replicas` if not given. With as many spares it runs
            `capacity + spares` processes at most.
        patience: limits.
        lease: seconds after which this node's slots are others', if it does not move.
        lines: where what replicas write goes; standard output if not given.
    """

    def __init__(
        self, store: Store, command: Command, *, node: str, replicas: int, spares: int = 0,
        capacity: int | None = None, patience: Patience = Patience(), lease: float = LEASE_S,
        lines: Lines | None = None,
    ) -> None:  # fmt: skip
        if spares < 0 or (capacity is not None and capacity < 1):
            raise ValueError(
                f"spares must not be negative, and capacity at least 1, not {spares} and {capacity}"
            )
        self._store, self._node, self._patience = store, node, patience
        self._spares, self._capacity = spares, (
            capacity if capacity is not None else max(replicas, 1)
        )
        store.compare_set(records.WANTED, None, str(records.count(replicas)).encode())
        self._wanted = replicas
        self._crew = Crew(command, node, patience, lines or Lines())
        self._events = Events(store, node)
        self._told = itertools.count()
        self._wake = threading.Event()
        self._registration = Registration(store, node, lease)
        self._mirror = Mirror(store, records.ALL)
        self._mirror.follow(self._wake.set)
        self._claims: set[int] = set()
        self._leaving = self._over = False
        self.failure: Exception | None = None  #: why it ended by itself
        self._thread = threading.Thread(target=self._run, name=f"agent {node}", daemon=True)
        self._thread.start()

    @property
    def pids(self) -> dict[str, int]:
        """Processes by replica."""
        return {one.id: one.process.pid for one in list(self._crew.members)}

    def close(self, drain: bool = True) -> None:
        """Leaves the fleet: other nodes take its slots, and its replicas end when their requests have.

        Args:
            drain: False ends them at once.
        """
        self._leaving, self._over = True, self._over or not drain
        self._wake.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close(drain=error is None)

    def _run(self) -> None:
        try:
            values, view = self._mirror.values, View.of(self._mirror.values)
            while not self._over and not (self._leaving and not self._crew.members):
                self._wake.wait(_TICK_S)
                self._wake.clear()
                if values is not self._mirror.values:
                    values = self._mirror.values
                    view = View.of(values)
                self._tick(view)
        except Exception as error:
            self.failure = error
            if not isinstance(
                error, NeverAnswered | OSError
            ):  # an OSError: there is no such program
                raise
        finally:
            with contextlib.ExitStack() as closing:  # one after the other, whatever goes wrong
                closing.callback(self._crew.close)
                closing.callback(self._registration.close)
                closing.callback(self._mirror.close)

    def _tick(self, view: View) -> None:
        if view.wanted is not None:
            self._wanted = view.wanted
        elif not self._leaving:  # the store has lost it
            count = str(self._wanted).encode()
            self._registration.soon(
                "wanted", lambda: self._store.compare_set(records.WANTED, None, count)
            )
        losses = self._crew.watch(view.quiet)
        for loss in losses:
            self._tell_loss(loss)
        slots = self._slots(view)
        self._fill(slots)
        self._drain(view)
        self._release(losses, view)
        self._keep_warm(slots, view)
        self._publish(view)

    def _slots(self, view: View) -> set[int]:
        """Those that this node has, of the wanted ones."""
        if self._leaving:
            self._claims.clear()
            return set()
        others = {slot: node for slot, node in view.slots.items() if node != self._node}
        # One with a replica is this node's until another has it: the store may only have lost its keys.
        mine = {slot for slot in self._claims if self._registration.holds(f"{records.SLOTS}{slot}")}
        mine = {slot for slot in mine | self._filled() if slot < self._wanted and slot not in others}  # fmt: skip
        taken = {**others, **{slot: self._node for slot in mine}}
        nodes = {**view.nodes, self._node: self._about()}
        self._claims = mine | set(claimable(self._wanted, taken, nodes, self._node))
        return mine

    def _fill(self, slots: set[int]) -> None:
        """Gives slots to replicas that are warm, and takes replicas without one out of use."""
        for member in self._crew.members:
            if member.state == "ready" and member.slot not in slots:
                self._start_draining(member)
        for slot in sorted(slots - self._filled()):
            warm = self._warm()
            if warm is not None:
                warm.state, warm.slot = "ready", slot
                self._event("ready", f"replica {warm.id} answers in slot {slot}")

    def _drain(self, view: View) -> None:
        """Takes those out of use that somebody wants out, behind a replacement where there is room."""
        for member in self._crew.members:
            if member.id in view.drains and member.state in ("ready", "spare"):
                warm = self._warm()
                if member.state == "ready" and (warm is not None or not self._room(1)):
                    if warm is not None:
                        warm.state, warm.slot = "ready", member.slot
                        self._event("ready", f"replica {warm.id} answers in slot {warm.slot} for {member.id}, which is drained")  # fmt: skip
                    self._start_draining(member)
                elif member.state == "spare":
                    self._start_draining(member)
        there = {member.id for member in self._crew.members}
        for key in (records.DRAINS + id for id in view.drains - there - view.replicas.keys()):
            self._registration.soon(key, functools.partial(self._store.delete, key))
        for member in self._crew.members:
            late = time.monotonic() > member.draining + self._patience.drain
            if member.state == "draining" and (view.left(member.id) or late):
                self._crew.end(member)

    def _release(self, losses: Sequence[Loss], view: View) -> None:
        """Leaves the slots of lost replicas that no warm one could take to nodes that have one."""
        nodes = {**view.nodes, self._node: self._about()}
        for slot in {loss.member.slot for loss in losses} - self._filled():
            if slot is not None and better_elsewhere(view.slots, nodes, self._node):
                self._claims.discard(slot)

    def _keep_warm(self, slots: set[int], view: View) -> None:
        """Starts what is missing, and ends what is too much."""
        if self._leaving:
            for member in self._crew.members:
                if member.state in ("starting", "spare"):
                    self._crew.end(member)
            return
        wanted = len(slots) + self._spares
        usable = [one for one in self._crew.members if one.state != "draining" and one.id not in view.drains]  # fmt: skip
        missing = wanted - len(usable)
        while missing > 0 and self._room(1) and self._crew.start():
            missing -= 1
        surplus = [one for one in usable if one.state in ("spare", "starting")]
        for member in sorted(surplus, key=lambda one: one.state == "spare")[: max(0, -missing)]:
            self._crew.end(member)

    def _publish(self, view: View) -> None:
        keys = {f"{records.REPLICAS}{one.id}": pack(one.record(self._node)) for one in self._crew.members}  # fmt: skip
        if not self._leaving:
            keys[f"{records.NODES}{self._node}"] = pack(self._about())
        claims = {f"{records.SLOTS}{slot}": self._node.encode() for slot in self._claims}
        self._registration.want(keys, claims)

    def _about(self) -> Node:
        return Node(
            capacity=self._capacity, warm=sum(one.state == "spare" for one in self._crew.members)
        )

    def _filled(self) -> set[int]:
        return {one.slot for one in self._crew.members if one.slot is not None}

    def _warm(self) -> Member | None:
        return next((one for one in self._crew.members if one.state == "spare"), None)

    def _room(self, more: int) -> bool:
        return len(self._crew.members) + more <= self._capacity + self._spares

    def _start_draining(self, member: Member) -> None:
        _log.info("replica %s is drained", member.id)
        member.state, member.slot, member.draining = "draining", None, time.monotonic()
        self._event("drain", f"replica {member.id} gets no more requests")

    def _tell_loss(self, loss: Loss) -> None:
        where = f" (slot {loss.member.slot})" if loss.member.slot is not None else ""
        _log.warning("replica %s%s %s", loss.member.id, where, loss.why)
        self._event("lost", f"replica {loss.member.id}{where} {loss.why}")

    def _event(self, kind: str, text: str) -> None:
        write = functools.partial(self._events.write, kind, text, at=time.time())
        self._registration.soon(f"event {next(self._told)}", write)
