"""Requests as they came, looked at before anything is done: what is not of this protocol ends the connection."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from oarlock.fleet_ext.parameter_server.messages import Message
from oarlock.fleet_ext.parameter_server.operations import NAMES, OF_CLIENTS, Operation
from oarlock.fleet_ext.transport.errors import Refused

_LARGEST = 1 << 62


def changes_of(message: Message, shards: int) -> list[tuple[int, int, Operation]]:
    """Shard, epoch and operation of each part of a client's change."""
    names = message.names
    kind, client = text(names, "kind"), text(names, "client")
    if kind not in OF_CLIENTS:
        raise Refused(f"clients have no operation {kind!r}")
    given = parts(names, shards, 4)
    rest = {key: value for key, value in names.items() if key in NAMES}
    found = []
    for (shard, epoch, number, _), arrays in zip(
        given, pieces(message, [one[3] for one in given]), strict=True
    ):
        found.append((shard, epoch, Operation(kind, client, number, rest, arrays)))
    return found


def parts(names: Mapping[str, Any], shards: int, length: int) -> list[list[int]]:
    """Lists of integers, of which the first is a shard, and each shard comes once."""
    given = names.get("parts")
    if not isinstance(given, list):
        raise Refused("a request has parts")
    for one in given:
        if not isinstance(one, list) or len(one) != length or not all(map(_is_count, one)):
            raise Refused(f"a part is {length} numbers")
        if one[0] >= shards:
            raise Refused(f"there is no shard {one[0]}")
    if len({one[0] for one in given}) != len(given):
        raise Refused("a request has each shard once")
    return given


def replicated(message: Message, shards: int) -> list[list[Any]]:
    """Parts of a primary's message."""
    given = message.names.get("parts")
    if not isinstance(given, list):
        raise Refused("a request has parts")
    total = 0
    for one in given:
        if not isinstance(one, list) or len(one) != 8:
            raise Refused("a part is eight values")
        shard, epoch, index, kind, client, number, names, count = one
        if not all(map(_is_count, (shard, epoch, index, number, count))) or shard >= shards:
            raise Refused("a part's numbers are none")
        if not isinstance(kind, str) or not isinstance(client, str) or not isinstance(names, dict):
            raise Refused("a part's names are none")
        total += count
    if total != len(message.arrays):
        raise Refused("arrays are not those of the parts")
    return given


def pieces(message: Message, counts: Sequence[int]) -> list[tuple[np.ndarray, ...]]:
    """Every array cut into parts of so many rows."""
    if any(one.ndim == 0 or len(one) != sum(counts) for one in message.arrays):
        raise Refused("arrays are not as long as the parts")
    found, begin = [], 0
    for count in counts:
        found.append(tuple(one[begin : begin + count] for one in message.arrays))
        begin += count
    return found


def keys_of(message: Message, counts: Sequence[int]) -> np.ndarray:
    """The keys of a request that has nothing else."""
    if len(message.arrays) != 1 or message.arrays[0].dtype != np.int64 or message.arrays[0].ndim != 1:  # fmt: skip
        raise Refused("a request for rows has int64 keys")
    if len(message.arrays[0]) != sum(counts):
        raise Refused("keys are not as many as the parts say")
    return message.arrays[0]


def text(names: Mapping[str, Any], name: str) -> str:
    found = names.get(name)
    if not isinstance(found, str) or len(found) > 200:
        raise Refused(f"{name} must be short text")
    return found


def number(names: Mapping[str, Any], name: str) -> int:
    found = names.get(name)
    if not _is_count(found):
        raise Refused(f"{name} must be a number")
    return found  # type: ignore[return-value]


def waits(names: Mapping[str, Any]) -> tuple[int, int] | None:
    """Step and bound of a pull that waits for others."""
    found = names.get("wait")
    if found is None:
        return None
    if not isinstance(found, list) or len(found) != 2 or not all(map(_is_count, found)):
        raise Refused("wait is a step and a bound")
    return found[0], found[1]


def seconds(names: Mapping[str, Any], name: str) -> float:
    found = names.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise Refused(f"{name} must be seconds")
    return float(found)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST
