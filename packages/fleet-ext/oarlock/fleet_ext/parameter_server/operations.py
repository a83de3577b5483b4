"""Changes of a shard, as clients send them and as its copies apply them, in the same order and with the same bits."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from oarlock.fleet_ext.parameter_server.hashing import shard_of
from oarlock.fleet_ext.parameter_server.layout import Layout

PUSH, ASSIGN, LOAD = (
    "push",
    "assign",
    "load",
)  #: gradients; values; values and what optimisers remember
TICK, JOIN, LEAVE = "tick", "join", "leave"  #: a worker ends a step; begins; ends
DROP = "drop"  #: a worker is lost, which a server says
ROWS = (PUSH, ASSIGN, LOAD)
OF_CLIENTS = (*ROWS, TICK, JOIN, LEAVE)
NAMES = {"table", "rank", "step", "workers", "averaged"}  #: that operations may have
MOST_WORKERS = 1 << 16
_MOST_STEPS = 1 << 60
_NAME_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Operation:
    """One change.

    Args:
        kind: one of the constants of this module.
        client: who asks.
        number: which of its changes of this shard, from 1 on; 0 for those of servers.
        names: what else belongs to it: table, rank, step, workers, averaged.
        arrays: keys int64 [n] and float32 [n, columns], for `ROWS`.
    """

    kind: str
    client: str
    number: int
    names: dict[str, Any]
    arrays: tuple[np.ndarray, ...] = ()

    def pack(self) -> list[Any]:
        """What is no array, as plain values."""
        return [self.kind, self.client, self.number, self.names, len(self.arrays)]


def check(operation: Operation, layout: Layout, shard: int) -> None:
    """
    Raises:
        ValueError: it cannot be applied, whatever the shard holds.
    """
    names = operation.names
    if not isinstance(names, dict):
        raise ValueError("an operation's names must be a dictionary")
    if not isinstance(operation.client, str) or len(operation.client) > _NAME_LENGTH:
        raise ValueError(f"client must be text of at most {_NAME_LENGTH} characters")
    _integer("number", operation.number, _MOST_STEPS)
    if operation.kind in ROWS:
        _check_rows(operation, layout, shard)
        if "rank" not in names:
            return
        if operation.kind != PUSH:
            raise ValueError(f"{operation.kind} has no rank")
    elif operation.kind not in (TICK, JOIN, LEAVE, DROP):
        raise ValueError(f"there is no operation {operation.kind!r:.40}")
    elif operation.arrays:
        raise ValueError(f"{operation.kind} has no arrays")
    _integer("rank", names.get("rank"), MOST_WORKERS)
    if operation.kind in (PUSH, TICK):
        _integer("step", names.get("step"), _MOST_STEPS)
    if operation.kind == JOIN:
        workers = _integer("workers", names.get("workers"), MOST_WORKERS)
        if names["rank"] >= workers:
            raise ValueError(f"rank must be below workers, {workers}, not {names['rank']}")
        if not isinstance(names.get("averaged"), bool):
            raise ValueError("averaged must be true or false")


def _check_rows(operation: Operation, layout: Layout, shard: int) -> None:
    name = operation.names.get("table")
    if not isinstance(name, str):
        raise ValueError("table must be a name")
    table = layout.table(name)
    if len(operation.arrays) != 2:
        raise ValueError(f"{operation.kind} has keys and rows")
    keys, rows = operation.arrays
    columns = table.record if operation.kind == LOAD else table.width
    if keys.dtype != np.int64 or keys.ndim != 1:
        raise ValueError(f"keys must be int64 [n], not {keys.dtype} {list(keys.shape)}")
    if rows.dtype != np.float32 or rows.shape != (len(keys), columns):
        raise ValueError(
            f"rows of table {name!r} must be float32 {[len(keys), columns]}, not {rows.dtype} {list(rows.shape)}"
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"rows for table {name!r} must be finite: leave out steps with NaN or infinity")  # fmt: skip
    if (shard_of(keys, layout.salts[name], layout.shards) != shard).any():
        raise ValueError(f"keys of table {name!r} do not belong to shard {shard}")


def _integer(name: str, value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"{name} must be an integer from 0 to {most}, not {value!r:.40}")
    return value
