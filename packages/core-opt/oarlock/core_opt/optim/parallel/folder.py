"""Replicas in processes of their own that exchange through a shared folder."""

import os
import pickle
import time
from collections.abc import Mapping
from pathlib import Path

from ... import _checks
from .local_steps import Loss, Replica
from .quantize import Packed


class FolderExchange:
    """What replicas send goes through files, so that they may be on any machines.

    A file appears whole or not at all. A replica removes its file of two rounds ago, which all have
    read, since all have sent what came after.

    Args:
        folder: shared by all replicas, used by one run only.
        worker: the number of this replica.
        workers: how many there are.
        patience_s: seconds to wait for the others.
    """

    def __init__(self, folder: str | Path, *, worker: int, workers: int, patience_s: float = 600.0):
        self._folder = Path(folder)
        self.workers = _checks.whole("workers", workers, 1)
        self.worker = _checks.whole("worker", worker, 0)
        if worker >= workers:
            raise ValueError(f"worker must be below workers = {workers}, got {worker}.")
        self._patience_s = _checks.non_negative("patience_s", patience_s)
        self._folder.mkdir(parents=True, exist_ok=True)

    def _path(self, number: int, worker: int) -> Path:
        return self._folder / f"round{number}-worker{worker}"

    def gather(self, number: int, payload: Mapping[str, Packed]) -> list[Mapping[str, Packed]]:
        """What all workers sent in this round, in the order of their numbers.

        Raises:
            TimeoutError: a worker has sent nothing for too long.
        """
        own = self._path(number, self.worker)
        part = own.with_suffix(".part")
        part.write_bytes(pickle.dumps(payload))
        os.replace(part, own)
        deadline = time.monotonic() + self._patience_s
        gathered = []
        for worker in range(self.workers):
            path = self._path(number, worker)
            while not path.exists():
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"worker {worker} sent nothing for round {number} in {self._patience_s:g} s."
                    )
                time.sleep(0.005)
            gathered.append(pickle.loads(path.read_bytes()))
        self._path(number - 2, self.worker).unlink(missing_ok=True)
        return gathered


def train(replica: Replica, exchange: FolderExchange, loss: Loss, *, rounds: int) -> list[float]:
    """Rounds of a replica in this process; returns its mean training losses."""
    losses = []
    for _ in range(_checks.whole("rounds", rounds, 0)):
        payload, mean = replica.send(loss)
        replica.receive(exchange.gather(replica.rounds, payload))
        losses.append(mean)
    return losses
