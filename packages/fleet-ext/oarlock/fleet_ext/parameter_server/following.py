"""What a backup does, and who is about to become one: takes a copy of a shard, and then its changes in their order."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from oarlock.fleet_ext.parameter_server.layout import Layout
from oarlock.fleet_ext.parameter_server.operations import Operation, check
from oarlock.fleet_ext.parameter_server.placement import Place
from oarlock.fleet_ext.parameter_server.shard import Shard
from oarlock.fleet_ext.parameter_server.slots import Busy, Slot

_BUILT = "shard that comes"  #: where a connection keeps it


class Following:
    """
    Args:
        slots: of all shards, in order.
        make: an empty shard of a number.
    """

    def __init__(
        self,
        layout: Layout,
        me: str,
        slots: Sequence[Slot],
        make: Callable[[int], Shard],
        busy: Busy,
    ) -> None:
        self._layout, self._me, self._slots = layout, me, slots
        self._make, self._busy = make, busy

    def replicate(self, parts: Sequence[Any], arrays: Sequence[np.ndarray]) -> list[str]:
        """Applies changes that the primary has applied.

        Args:
            parts: of each the shard, its epoch and index, and `Operation.pack()`.

        Returns:
            "" for each that this copy has now; else why not.
        """
        results, begin = [], 0
        for shard, epoch, index, kind, client, number, names, count in parts:
            operation = Operation(kind, client, number, names, tuple(arrays[begin : begin + count]))
            begin += count
            try:
                check(operation, self._layout, shard)
                results.append(self._apply(self._slots[shard], epoch, index, operation))
            except ValueError as error:
                results.append(str(error))
        return results

    def _apply(self, slot: Slot, epoch: int, index: int, operation: Operation) -> str:
        place = slot.place
        if place is not None and (slot.leads or epoch < place.epoch):
            return f"epoch {epoch} is over: it is {place.epoch}"
        with slot.condition, self._busy.working():
            place = slot.place
            if place is not None and (slot.leads or epoch < place.epoch):
                return f"epoch {epoch} is over: it is {place.epoch}"
            if slot.shard is None:
                return "there is no copy here"
            if index <= slot.shard.index:
                return ""
            if index != slot.shard.index + 1:
                return f"change {index} does not follow {slot.shard.index}"
            slot.shard.apply(operation)
            slot.condition.notify_all()
            return ""

    def install(
        self, names: dict[str, Any], arrays: Sequence[np.ndarray], kept: dict[str, object]
    ) -> str:
        """Takes a piece of a copy, of which one connection sends all.

        Returns:
            "", or why it is not taken.
        """
        if names["step"] == "begin":
            return self._begin(names, arrays, kept)
        built = kept.get(_BUILT)
        if not isinstance(built, tuple):
            return "a copy begins with its beginning"
        slot, made, epoch = built
        with slot.condition, self._busy.working():
            place = slot.place
            if slot.building is not made or place is None or place.joining != self._me or place.epoch != epoch:  # fmt: skip
                return "the map has changed, or another copy was begun"
            if names["step"] == "rows":
                made.parts[names["table"]].load(*arrays)
                return ""
            slot.shard, slot.building = made, None
        del kept[_BUILT]
        return ""

    def _begin(
        self, names: dict[str, Any], arrays: Sequence[np.ndarray], kept: dict[str, object]
    ) -> str:
        place = Place(*names["place"])
        if place.joining != self._me:
            return "this server is not asked to join"
        slot = self._slots[names["shard"]]
        with slot.condition:
            known = slot.place
            if known is not None and known.version > place.version or slot.leads or slot.follows:
                return "the map has changed"
            for old in (slot.shard, slot.building):
                if old is not None:
                    old.clear()
            slot.shard, slot.building = None, self._make(names["shard"])
            slot.building.begin(names["plain"], [one.copy() for one in arrays])
            slot.place = place
            kept[_BUILT] = (slot, slot.building, place.epoch)
        return ""

    def forget(self, kept: dict[str, object]) -> None:
        """Gives up a copy whose connection has ended."""
        built = kept.pop(_BUILT, None)
        if isinstance(built, tuple):
            slot, made, _ = built
            with slot.condition:
                if slot.building is made:
                    made.clear()
                    slot.building = None
