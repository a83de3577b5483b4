"""How far the workers of a shard are, and the gradients of steps that are not over.

A worker's clock is the number of steps that it has ended. Where steps are averaged, gradients wait until all workers
have ended the step; their mean over the workers is applied once, as if one process had computed it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oarlock.fleet_ext.parameter_server.errors import WorkerLost

Gradients = tuple[str, np.ndarray, np.ndarray]  #: table, keys [n], gradients [n, width]


class Clocks:
    """
    Args:
        apply: takes a step on a table with keys and gradients.
    """

    def __init__(self, apply: Callable[[str, np.ndarray, np.ndarray], None]) -> None:
        self._apply = apply
        self._reset(0, False)

    def _reset(self, workers: int, averaged: bool) -> None:
        self._workers, self._averaged = workers, averaged
        self._clock = {rank: 0 for rank in range(workers)}
        self._active = set(range(workers))  #: who is waited for
        self._left: set[int] = set()
        self._clients: dict[int, str] = {}
        self._applied = 0  #: steps, where they are averaged
        self._staged: dict[int, dict[int, list[Gradients]]] = {}  #: by step and rank

    # What only looks.

    def check_join(self, workers: int, averaged: bool) -> None:
        """
        Raises:
            ValueError: others of the job say something else.
        """
        if self._active and (workers, averaged) != (self._workers, self._averaged):
            kind = "Synchronous" if self._averaged else "StaleSynchronous"
            raise ValueError(
                f"consistency must be that of the other workers: {kind}, workers={self._workers}"
            )

    def check(self, rank: int, client: str) -> None:
        """
        Raises:
            WorkerLost: this client does not have the rank, or no longer.
        """
        if self._clients.get(rank) != client or rank not in self._active:
            raise WorkerLost(f"rank {rank} was taken for lost, or is another client's")

    def clock(self, rank: int) -> int:
        return self._clock[rank]

    def behind(self, step: int, bound: int) -> list[int]:
        """Ranks for which a worker that begins a step has to wait; averaged steps must all be applied."""
        if self._averaged:
            least = step
            if self._applied >= step:
                return []
        else:
            least = step - bound
        return sorted(rank for rank in self._active if self._clock[rank] < least)

    def clients(self) -> dict[int, str]:
        """Of the ranks that are waited for and have begun."""
        return {rank: one for rank, one in self._clients.items() if rank in self._active}

    # What changes.

    def join(self, rank: int, client: str, workers: int, averaged: bool) -> None:
        if not self._active and (workers, averaged) != (self._workers, self._averaged):
            self._reset(workers, averaged)
        self._discard(rank)
        if rank not in self._active:
            others = [self._clock[one] for one in self._active]
            self._clock[rank] = max(self._clock[rank], self._applied, min(others, default=0))
            self._active.add(rank)
            self._left.discard(rank)
        self._clients[rank] = client

    def push(self, rank: int, step: int, gradients: Gradients) -> None:
        if not self._averaged:
            self._apply(*gradients)
        elif step >= self._clock[rank]:  # else an earlier client of this rank has ended the step
            self._staged.setdefault(step, {}).setdefault(rank, []).append(gradients)

    def tick(self, rank: int, step: int) -> None:
        self._clock[rank] = max(self._clock[rank], step + 1)
        self._advance()

    def leave(self, rank: int) -> None:
        """A worker has done its work. Where all have, their clocks are forgotten."""
        self._left.add(rank)
        self.drop(rank)
        if len(self._left) == self._workers:
            self._reset(0, False)

    def drop(self, rank: int) -> None:
        """A worker is lost: steps are those of the others. What it had not ended is forgotten."""
        self._discard(rank)
        self._active.discard(rank)
        self._clients.pop(rank, None)
        self._advance()

    def _discard(self, rank: int) -> None:
        for step, staged in self._staged.items():
            if step >= self._clock.get(rank, 0):
                staged.pop(rank, None)

    def _advance(self) -> None:
        while self._averaged and self._active:
            step = self._applied
            if any(self._clock[rank] <= step for rank in self._active):
                return
            there = sum(clock > step for clock in self._clock.values())
            self._take(self._staged.pop(step, {}), there)
            self._applied += 1

    def _take(self, staged: Mapping[int, list[Gradients]], workers: int) -> None:
        """The mean over workers, each table once, ranks in their order."""
        given = [one for rank in sorted(staged) for one in staged[rank]]
        for table in dict.fromkeys(table for table, _, _ in given):
            keys = np.concatenate([keys for name, keys, _ in given if name == table])
            rows = np.concatenate([rows for name, _, rows in given if name == table])
            self._apply(table, keys, rows / np.float32(workers))

    # For another copy.

    def export(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        staged, arrays = [], []
        for step, by_rank in self._staged.items():
            for rank, given in by_rank.items():
                for table, keys, rows in given:
                    staged.append([step, rank, table])
                    arrays += [keys, rows]
        plain = {
            "workers": self._workers, "averaged": self._averaged, "applied": self._applied, "staged": staged,
            "clock": list(self._clock.items()), "active": sorted(self._active), "left": sorted(self._left),
            "clients": list(self._clients.items()),
        }  # fmt: skip
        return plain, arrays

    def restore(self, plain: Mapping[str, Any], arrays: list[np.ndarray]) -> None:
        self._reset(plain["workers"], plain["averaged"])
        self._applied = plain["applied"]
        self._clock, self._clients = dict(plain["clock"]), dict(plain["clients"])
        self._active, self._left = set(plain["active"]), set(plain["left"])
        for number, (step, rank, table) in enumerate(plain["staged"]):
            given = (table, arrays[2 * number], arrays[2 * number + 1])
            self._staged.setdefault(step, {}).setdefault(rank, []).append(given)
