"""Training that waits less: local steps here, asynchronous SGD from `oarlock.core_opt.asynchronous`.

from oarlock.core_opt import optim
muloco = optim.parallel.MuLoCo(model, workers=4, inner_steps=30, bits=4)
muloco.round(lambda model, worker: model.loss(*next(batches[worker])))
"""

from ...asynchronous import (
    Asynchronous,
    Cluster,
    DelayCompensated,
    Interrupted,
    Oracle,
    Processes,
    Rennala,
    Ringmaster,
    Strategy,
    Synchronous,
    Trace,
    Until,
    WorkerFailed,
    bounds,
    delays,
    problems,
    time_gradients,
)
from .folder import FolderExchange, train
from .local_steps import DiLoCo, LocalSteps, MuLoCo, Options, Replica, inner_of
from .oracle import ModelOracle
from .quantize import Packed, pack, unpack

__all__ = [
    "Asynchronous",
    "Cluster",
    "DelayCompensated",
    "DiLoCo",
    "FolderExchange",
    "Interrupted",
    "LocalSteps",
    "ModelOracle",
    "MuLoCo",
    "Options",
    "Oracle",
    "Packed",
    "Processes",
    "Rennala",
    "Replica",
    "Ringmaster",
    "Strategy",
    "Synchronous",
    "Trace",
    "Until",
    "WorkerFailed",
    "bounds",
    "delays",
    "inner_of",
    "pack",
    "problems",
    "time_gradients",
    "train",
    "unpack",
]
