"""Epochs: which nodes train together, and as which ranks. Pure functions; `membership` keeps them in a store."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Epoch:
    """A time during which the same nodes train.

    Args:
        number: which grows.
        nodes: names, in the order of ranks.
        latest: the highest arrival known when it was made; who has a higher one came later, or came again.
    """

    number: int
    nodes: tuple[str, ...]
    latest: int = 0

    def rank(self, node: str) -> int | None:
        """None where it does not take part."""
        return self.nodes.index(node) if node in self.nodes else None

    def pack(self) -> bytes:
        return json.dumps([self.number, self.nodes, self.latest]).encode()

    @classmethod
    def unpack(cls, packed: bytes) -> "Epoch":
        number, nodes, latest = json.loads(packed)
        return cls(number, tuple(nodes), latest)

    def staying(self, arrivals: Mapping[str, int]) -> list[str]:
        """Its nodes that have been there all the time; not one of the same name whose process began anew."""
        return [node for node in self.nodes if node in arrivals and arrivals[node] <= self.latest]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many nodes train.

    Args:
        least: fewer wait for others.
        most: more are spare: ready, and taken when another is lost.
    """

    least: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"least must be from 1 to most, {self.most}, not {self.least}")


def following(
    current: Epoch | None, arrivals: Mapping[str, int], lost: Collection[str], size: Size,
    resting: Collection[str] = (),
) -> Epoch | None:  # fmt: skip
    """The next epoch: who stays keeps its rank, and those who wait take the free ranks in the order of arrival.

    Ranks that stay free are given to those with the highest ones. So a job that gets a spare node for a lost one goes
    on with the same ranks, and with the same batches.

    Args:
        current: None at the beginning.
        arrivals: nodes that are there, with a number that tells the order in which they came.
        lost: of these, who does not count.
        resting: of these, who counts only where there would be too few: they hold the others up.

    Returns:
        None where too few are there.
    """
    before = current.nodes if current is not None else ()
    there = {node: order for node, order in arrivals.items() if node not in lost}
    alive = {node: order for node, order in there.items() if node not in resting}
    tired = sorted(there.keys() - alive.keys(), key=lambda node: (node not in before, there[node]))
    for needed in tired[: max(0, size.least - len(alive))]:
        alive[needed] = there[needed]
    ranks: list[str | None] = [node if node in alive else None for node in before[: size.most]]
    waiting = sorted(alive.keys() - set(ranks), key=lambda node: (node not in before, alive[node]))
    for rank, node in enumerate(ranks):
        if node is None and waiting:
            ranks[rank] = waiting.pop(0)
    ranks += waiting[: size.most - len(ranks)]
    while None in ranks:
        last = ranks.pop()
        if last is not None:
            ranks[ranks.index(None)] = last
    nodes = tuple(node for node in ranks if node is not None)
    if len(nodes) < size.least:
        return None
    number = current.number + 1 if current is not None else 1
    return Epoch(number, nodes, max(arrivals.values()))
