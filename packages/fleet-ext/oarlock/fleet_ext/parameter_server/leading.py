"""What the primary of a shard does: admits changes, applies them, has the backup apply them, and only then acknowledges."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oarlock.fleet_ext.parameter_server import operations
from oarlock.fleet_ext.parameter_server.errors import Moved, WorkerLost
from oarlock.fleet_ext.parameter_server.layout import Layout
from oarlock.fleet_ext.parameter_server.links import Applied, LinkLost, Links
from oarlock.fleet_ext.parameter_server.membership import Membership
from oarlock.fleet_ext.parameter_server.operations import Operation, check
from oarlock.fleet_ext.parameter_server.shard import Shard
from oarlock.fleet_ext.parameter_server.slots import Busy, Slot
from oarlock.fleet_ext.transport.work import Work

SETTLE_S = 10.0  #: for a backup that was lost to be taken out of the map
REFUSED_S = 1.0  #: after which a backup that refuses, and is still in the map, is taken out of it
WAIT_S = 1.0  #: that a pull waits for other workers until it is answered that it still has to

Result = list[Any]  #: ["ok", value], or what is in the way and why


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that was applied here, and may not be on the backup yet."""

    slot: Slot
    shard: Shard
    epoch: int
    work: Work[None] | None
    value: Any = None


class Leading:
    """
    Args:
        slots: of all shards, in order.
        without: takes a shard's backup out of the map; the slot's condition is held.
    """

    def __init__(
        self, layout: Layout, membership: Membership, links: Links, slots: Sequence[Slot], busy: Busy,
        without: Callable[[Slot], None],
    ) -> None:  # fmt: skip
        self._without = without
        self._layout, self._membership, self._links = layout, membership, links
        self._slots, self._busy = slots, busy

    def change(self, given: Sequence[tuple[int, int, Operation]]) -> list[Result]:
        """Applies changes, each of one shard, on all copies.

        Args:
            given: shard, the epoch that the client knows, and what to do.

        Returns:
            a result for each; "ok" only where all copies have it.
        """
        begun: list[Pending | Result] = [self._attempt(lambda: self._begin(*one)) for one in given]
        until = time.monotonic() + SETTLE_S
        return [
            self._attempt(lambda: self._settled(one, until)) if isinstance(one, Pending) else one
            for one in begun
        ]

    def pull(self, table: str, client: str, parts: Sequence[Any], keys: np.ndarray, wait: Any) -> tuple[list[Result], list[np.ndarray]]:  # fmt: skip
        """Rows for training, which have all that this client's acknowledged pushes did.

        Args:
            parts: of each shard its number, the epoch that the client knows, the number of the client's last change, and
                how many of the keys are its.
            wait: step and bound, where other workers must be that far; else None.

        Returns:
            a result for each shard, and the rows of those that are "ok".
        """
        results: list[Result] = []
        rows: list[np.ndarray] = []
        until, begin = time.monotonic() + WAIT_S, 0
        for shard, epoch, number, count in parts:
            part = keys[begin : begin + count]
            begin += count

            def found(shard=shard, epoch=epoch, number=number, part=part) -> Result:  # type: ignore[no-untyped-def]
                return self._pull(self._slots[shard], epoch, table, client, number, part, wait, until, rows)  # fmt: skip

            results.append(self._attempt(found))
        return results, rows

    def drop(self, slot: Slot, rank: int, client: str) -> None:
        """Goes on without a worker whose lease is over."""
        operation = Operation(operations.DROP, client, 0, {"rank": rank})
        with slot.condition:
            epoch = slot.place.epoch if slot.place is not None else 0
        self._attempt(lambda: self._begin(slot.shard_number, epoch, operation))

    @staticmethod
    def _attempt(act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Moved as error:
            return ["moved", str(error)]
        except WorkerLost as error:
            return ["lost", str(error)]
        except ValueError as error:
            return ["refused", str(error)]

    def _begin(self, shard: int, epoch: int, operation: Operation) -> Pending:
        check(operation, self._layout, shard)
        slot = self._slots[shard]
        with slot.condition, self._busy.working():
            led, place = self._led(slot, epoch)
            if place.backup is None and self._membership.left <= 0:
                raise Moved(f"server {self._membership.name} may have been taken for lost")
            if led.admit(operation):
                led.apply(operation)
                self._pass_on(slot, place.backup, place.epoch, led.index, operation)
                slot.condition.notify_all()
            value = None
            if operation.kind == operations.JOIN:
                value = led.clocks.clock(operation.names["rank"])
            return Pending(slot, led, place.epoch, slot.latest, value)

    def _pass_on(
        self, slot: Slot, backup: str | None, epoch: int, index: int, operation: Operation
    ) -> None:
        change = Applied(slot.shard_number, epoch, index, operation)
        if slot.backlog is not None:
            slot.backlog.append(Applied(slot.shard_number, epoch, index, operation))
        if backup is None:
            slot.latest = None
        else:
            self._links.submit(backup, change)
            slot.latest = change.done

    def _settled(self, pending: Pending, until: float) -> Result:
        """When the change is on all copies that the map names.

        Where the backup is lost, this server takes it out of the map, or is taken out itself. If it still leads then, with the
        same copy, the change is in all that there is.
        """
        if pending.work is None:
            return ["ok", pending.value]
        try:
            pending.work.wait(max(0.0, until - time.monotonic()))
            return ["ok", pending.value]
        except LinkLost:
            self._membership.look()
        except TimeoutError as error:
            raise Moved("the backup does not acknowledge") from error
        slot, patient = pending.slot, time.monotonic() + REFUSED_S
        with slot.condition:
            while slot.leads and slot.shard is pending.shard:
                assert slot.place is not None
                if slot.place.epoch > pending.epoch:
                    # A later backup was given all of this copy before it was named.
                    return ["ok", pending.value]
                now = time.monotonic()
                if now >= until:
                    raise Moved("the backup is lost, and the map could not be changed")
                if now >= patient:
                    self._without(slot)
                    patient = until
                else:
                    slot.condition.wait(min(patient, until) - now)
        raise Moved(f"server {self._membership.name} does not lead shard {slot.shard_number} now")

    def _pull(
        self, slot: Slot, epoch: int, table: str, client: str, number: int, keys: np.ndarray, wait: Any, until: float,
        rows: list[np.ndarray],
    ) -> Result:  # fmt: skip
        with slot.condition:
            while True:
                led, _ = self._led(slot, epoch)
                if self._membership.left <= 0:
                    raise Moved(f"server {self._membership.name} may have been taken for lost")
                if led.last(client) < number:
                    raise Moved("this copy lacks changes that were acknowledged")
                behind = [] if wait is None else led.clocks.behind(*wait)
                if not behind:
                    break
                left = until - time.monotonic()
                if left <= 0:
                    return ["behind", behind]
                slot.condition.wait(left)
            with self._busy.working():
                rows.append(led.parts[table].pull(keys))
        return ["ok", None]

    def _led(self, slot: Slot, epoch: int) -> tuple[Shard, Any]:
        """
        Raises:
            Moved: this server does not lead, or the client knows better.
        """
        me, place = self._membership.name, slot.place
        if place is None or not slot.leads or slot.shard is None:
            raise Moved(f"server {me} does not lead shard {slot.shard_number}")
        if epoch > place.epoch:
            self._membership.look()
            raise Moved(f"server {me} knows epoch {place.epoch} of shard {slot.shard_number}, and it is {epoch}")  # fmt: skip
        return slot.shard, place
