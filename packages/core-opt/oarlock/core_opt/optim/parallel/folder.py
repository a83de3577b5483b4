"""Replicas in processes of their own that exchange through a shared folder."""

import io
import os
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ... import _checks
from .local_steps import Loss, Replica
from .quantize import Packed


class FolderExchange:
    """What replicas send goes through files, so that they may be on any machines.

    A file holds arrays only (NumPy's ``npz``), and appears whole or not at all. A replica removes its
    file of two rounds ago, which all have read, since all have sent what came after.

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
            FileExistsError: the folder holds something else that this worker sent in this round.
            TimeoutError: a worker has sent nothing for too long.
        """
        own, sent = self._path(number, self.worker), _written(payload)
        if not own.exists():
            part = own.with_suffix(".part")
            part.write_bytes(sent)
            os.replace(part, own)
        elif own.read_bytes() != sent:  # a round begun again sends the same
            raise FileExistsError(
                f"{own} is of another run; give each run a folder of its own, or empty this one."
            )
        deadline = time.monotonic() + self._patience_s
        gathered: list[Mapping[str, Packed]] = []
        for worker in range(self.workers):
            path = self._path(number, worker)
            while not path.exists():
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"worker {worker} sent nothing for round {number} in {self._patience_s:g} s."
                    )
                time.sleep(0.005)
            gathered.append(_read(path))
        self._path(number - 2, self.worker).unlink(missing_ok=True)
        return gathered


def _written(payload: Mapping[str, Packed]) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    for name, one in payload.items():
        arrays[f"data:{name}"] = one.data
        arrays[f"about:{name}"] = np.array([one.bits or 0, *one.shape], np.int64)
        if one.low is not None and one.step is not None:
            arrays |= {f"low:{name}": one.low, f"step:{name}": one.step}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _read(path: Path) -> dict[str, Packed]:
    payload = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            kind, _, name = key.partition(":")
            if kind == "about":
                bits, *shape = arrays[key].tolist()
                payload[name] = Packed(
                    shape=tuple(shape),
                    bits=bits or None,
                    data=arrays[f"data:{name}"],
                    low=arrays[f"low:{name}"] if bits else None,
                    step=arrays[f"step:{name}"] if bits else None,
                )
    return payload


def train(replica: Replica, exchange: FolderExchange, loss: Loss, *, rounds: int) -> list[float]:
    """Rounds of a replica in this process; returns its mean training losses."""
    losses = []
    for _ in range(_checks.whole("rounds", rounds, 0)):
        payload, mean = replica.send(loss)
        replica.receive(exchange.gather(replica.rounds, payload))
        losses.append(mean)
    return losses
