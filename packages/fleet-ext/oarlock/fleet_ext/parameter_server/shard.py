"""A shard: its part of all tables, the clocks of its workers, and which changes of each client it has.

A shard is a state machine: copies that apply the same operations in the same order are equal in all bits. Nothing
here locks or waits; `apply` cannot fail for what `check` and `admit` have let through, except where the machine does.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from oarlock.fleet_ext.parameter_server import operations
from oarlock.fleet_ext.parameter_server.clocks import Clocks
from oarlock.fleet_ext.parameter_server.cold import ColdRows, ColdStore
from oarlock.fleet_ext.parameter_server.layout import Layout, Table
from oarlock.fleet_ext.parameter_server.operations import Operation
from oarlock.fleet_ext.parameter_server.part import Part
from oarlock.fleet_ext.parameter_server.rows import Image, MemoryRows, Rows
from oarlock.fleet_ext.parameter_server.tiers import TieredRows

_CLIENTS = 1 << 16  #: whose last change is known
_CHUNK_BYTES = 4 << 20


class Shard:
    """
    Args:
        layout: of the job.
        number: of the shard.
        cold: the server's disk; needed where a table has `hot_rows`.
    """

    def __init__(self, layout: Layout, number: int, cold: ColdStore | None) -> None:
        self._layout, self._number = layout, number
        self.parts = {
            name: Part(layout.tables[name], self._rows(layout.tables[name], place, cold))
            for place, name in enumerate(sorted(layout.tables))
        }
        self.clocks = Clocks(lambda table, keys, rows: self.parts[table].push(keys, rows))
        self._last: OrderedDict[str, int] = OrderedDict()
        self.index = 0  #: operations that were applied

    def last(self, client: str) -> int:
        """The number of the client's last change."""
        return self._last.get(client, 0)

    def admit(self, operation: Operation) -> bool:
        """Whether it is new; False where it was applied already, and its answer was lost.

        Raises:
            ValueError: it does not follow the client's last one, or contradicts the other workers.
            WorkerLost: its worker no longer counts.
        """
        names = operation.names
        if operation.kind == operations.DROP:
            return self.clocks.clients().get(names["rank"]) == operation.client
        last = self.last(operation.client)
        if operation.number <= last:
            return False
        if operation.number != last + 1:
            raise ValueError(
                f"number must be {last + 1}, not {operation.number}: changes of a client come in order"
            )
        if operation.kind == operations.JOIN:
            self.clocks.check_join(names["workers"], names["averaged"])
        elif "rank" in names:
            self.clocks.check(names["rank"], operation.client)
        return True

    def apply(self, operation: Operation) -> None:
        """Does what was admitted."""
        names, arrays, client = operation.names, operation.arrays, operation.client
        match operation.kind:
            case operations.PUSH if "rank" in names:
                given = (names["table"], arrays[0], arrays[1])
                self.clocks.push(names["rank"], names["step"], given)
            case operations.PUSH:
                self.parts[names["table"]].push(*arrays)
            case operations.ASSIGN:
                self.parts[names["table"]].assign(*arrays)
            case operations.LOAD:
                self.parts[names["table"]].load(*arrays)
            case operations.TICK:
                self.clocks.tick(names["rank"], names["step"])
            case operations.JOIN:
                self.clocks.join(names["rank"], client, names["workers"], names["averaged"])
            case operations.LEAVE:
                self.clocks.leave(names["rank"])
            case operations.DROP:
                self.clocks.drop(names["rank"])
        self.index += 1
        if operation.kind != operations.DROP:
            self._last[client] = operation.number
            self._last.move_to_end(client)
            if len(self._last) > _CLIENTS:
                self._last.popitem(last=False)

    def image(self) -> "ShardImage":
        """Everything as it is now; to be closed."""
        clocks, staged = self.clocks.export()
        plain = {"index": self.index, "last": list(self._last.items()), "clocks": clocks}
        parts = {name: part.image() for name, part in self.parts.items()}
        records = {name: self._layout.tables[name].record for name in parts}
        return ShardImage(plain, staged, parts, records)

    def begin(self, plain: Mapping[str, Any], staged: list[np.ndarray]) -> None:
        """Becomes like another copy; its rows come by `Part.load`."""
        self.index = plain["index"]
        self._last = OrderedDict((client, number) for client, number in plain["last"])
        self.clocks.restore(plain["clocks"], staged)

    def clear(self) -> None:
        for part in self.parts.values():
            part.clear()

    def _rows(self, table: Table, place: int, cold: ColdStore | None) -> Rows:
        if table.hot_rows is None:
            return MemoryRows(table.record)
        if cold is None:
            raise ValueError("folder must be given: a table has hot_rows, and its other rows need a disk")  # fmt: skip
        capacity = -(-table.hot_rows // self._layout.shards)
        on_disk = ColdRows(cold, self._number, place, table.record)
        on_disk.clear()
        return TieredRows(table.record, capacity, on_disk)


@dataclass(frozen=True, slots=True)
class ShardImage:
    """A shard as it was at one moment.

    Args:
        plain: what is no array.
        staged: gradients of steps that are not over.
        parts: rows of each table.
        columns: of each table's records.
    """

    plain: dict[str, Any]
    staged: list[np.ndarray]
    parts: Mapping[str, Image]
    columns: Mapping[str, int]

    def chunks(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Table, keys [n] and records [n, columns], a few megabytes at a time."""
        for name, image in self.parts.items():
            for keys, records in image.chunks(max(1, _CHUNK_BYTES // (4 * self.columns[name]))):
                yield name, keys, records

    def close(self) -> None:
        for image in self.parts.values():
            image.close()
