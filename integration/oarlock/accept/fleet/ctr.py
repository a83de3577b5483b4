"""A wide and deep model of incomes, trained over tables or by Paddle alone: `python -m oarlock.accept.fleet.ctr ORDER RANK`.

Clicks are predicted from many categories with few numbers; the census (Adult) has the same shape: 14 fields,
here all made categories (numbers by their deciles), each of which is a key of 64 bits, and four crosses of two.

Source of the model: Cheng et al., "Wide & deep learning for recommender systems", 1606.07792.
"""

import csv
import gzip
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from oarlock.fleet_ext.parameter_server import (
    AdaGrad,
    Adam,
    Asynchronous,
    Client,
    Constant,
    Dense,
    Layout,
    Normal,
    Sgd,
    Sparse,
    StaleSynchronous,
    Synchronous,
)
from oarlock.fleet_ext.rendezvous import TcpStore

NUMBERS = ("age", "fnlwgt", "education-num", "capital-gain", "capital-loss", "hours-per-week")
CROSSES = (
    ("education", "occupation"),
    ("marital-status", "occupation"),
    ("workclass", "sex"),
    ("age", "hours-per-week"),
)
TARGET = "income-per-year"
JOB = "ctr"
WIDTH, HIDDEN = 8, 32
TEST = 0.2  #: of the rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a worker is told.

    Args:
        store: port on this machine; 0 for Paddle alone, without servers.
        mode: "synchronous", "stale" or "asynchronous".
        steps: of each worker.
        batch: rows of a step, of all workers together.
        hot_rows: of each sparse table, in memory.
    """

    data: str
    out: str
    seed: int
    steps: int
    store: int = 0
    token: str = ""
    mode: str = "synchronous"
    workers: int = 1
    batch: int = 256
    hot_rows: int | None = None

    @classmethod
    def unpack(cls, packed: str) -> Self:
        return cls(**json.loads(packed))

    def pack(self) -> str:
        return json.dumps(asdict(self))

    def layout(self, shards: int = 8) -> Layout:
        """The tables; `counts` is for who counts pushes."""
        deep = Normal(deviation=0.05, seed=self.seed)
        return Layout(
            shards=shards,
            tables={
                "deep": Sparse(width=WIDTH, optimizer=AdaGrad(rate=0.05), initial=deep, hot_rows=self.hot_rows),
                "wide": Sparse(width=1, optimizer=AdaGrad(rate=0.05), initial=Constant(), hot_rows=self.hot_rows),
                "tower": Dense(shape=(tower_size(),), optimizer=Adam(rate=2e-3)),
                "counts": Sparse(width=1, optimizer=Sgd(rate=1.0), initial=Constant()),
            },
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rows:
    """
    Args:
        deep: int64 [n, fields].
        wide: int64 [n, fields + crosses].
        labels: float32 [n, 1].
    """

    deep: np.ndarray
    wide: np.ndarray
    labels: np.ndarray

    def of(self, chosen: np.ndarray) -> "Rows":
        return Rows(self.deep[chosen], self.wide[chosen], self.labels[chosen])


def read(path: Path, seed: int) -> tuple[Rows, Rows]:
    """Rows for training and for testing."""
    with gzip.open(path, "rt") as file:
        lines = list(csv.DictReader(file))
    fields = [name for name in lines[0] if name != TARGET]
    columns = {name: np.array([line[name].strip() for line in lines]) for name in fields}
    for name in NUMBERS:
        values = columns[name].astype(float)
        edges = np.unique(np.quantile(values, np.linspace(0.1, 0.9, 9)))
        columns[name] = np.searchsorted(edges, values, side="right").astype(str)
    keys = {name: keys_of(name, columns[name]) for name in fields}
    for one, other in CROSSES:
        both = np.char.add(np.char.add(columns[one], "|"), columns[other])
        keys[f"{one}|{other}"] = keys_of(f"{one}|{other}", both)
    labels = np.array([[line[TARGET].strip().startswith(">")] for line in lines], np.float32)
    wide = np.stack(list(keys.values()), axis=1)
    whole = Rows(np.stack([keys[name] for name in fields], axis=1), wide, labels)
    order = np.random.default_rng([seed, 1]).permutation(len(lines))
    cut = int(len(lines) * TEST)
    return whole.of(order[cut:]), whole.of(order[:cut])


def keys_of(field: str, values: np.ndarray) -> np.ndarray:
    """A key of 64 bits for each category of a field."""
    unique, places = np.unique(values, return_inverse=True)
    digests = [hashlib.blake2b(f"{field}={one}".encode(), digest_size=8).digest() for one in unique]
    return np.array([int.from_bytes(one, "little", signed=True) for one in digests], np.int64)[places]  # fmt: skip


def batch_of(rows: Rows, order: Order, step: int, rank: int) -> Rows:
    """A worker's part of the batch of a step."""
    chosen = np.random.default_rng([order.seed, 2, step]).integers(0, len(rows.labels), order.batch)
    return rows.of(chosen[rank :: order.workers])


def tower_size() -> int:
    fields = 14
    return fields * WIDTH * HIDDEN + HIDDEN + HIDDEN + 1 + 1


def model_of(deep: Any, wide: Any, seed: int) -> Any:
    """
    Args:
        deep, wide: layers from keys to rows.
    """
    import paddle
    from paddle import nn

    class WideAndDeep(nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            paddle.seed(seed)
            self.deep, self.wide = deep, wide
            # Not ReLU: at its kink what rounding leaves decides, and trainings that are the same part.
            self.tower = nn.Sequential(
                nn.Linear(14 * WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1)
            )
            self.bias = self.create_parameter([1], is_bias=True)

        def forward(self, deep_keys: Any, wide_keys: Any) -> Any:
            count = deep_keys.shape[0]
            above = self.tower(self.deep(deep_keys).reshape([count, -1]))
            return (
                above + self.wide(wide_keys).reshape([count, -1]).sum(1, keepdim=True) + self.bias
            )

        def dense(self) -> list[Any]:
            return [*self.tower.parameters(), self.bias]

    return WideAndDeep()


def loss_of(model: Any, rows: Rows) -> Any:
    import paddle

    logits = model(paddle.to_tensor(rows.deep), paddle.to_tensor(rows.wide))
    return paddle.nn.functional.binary_cross_entropy_with_logits(
        logits, paddle.to_tensor(rows.labels)
    )


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the receiver's curve: how often a positive row has the higher score, ties half."""
    labels, scores = labels.reshape(-1) > 0.5, scores.reshape(-1)
    unique, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    positive = int(labels.sum())
    negative = len(labels) - positive
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * negative))


def tested(model: Any, rows: Rows) -> dict[str, float]:
    """AUC and log loss on rows."""
    import paddle

    model.eval()
    with paddle.no_grad():
        logits = model(paddle.to_tensor(rows.deep), paddle.to_tensor(rows.wide)).numpy()
    signs = np.where(rows.labels > 0.5, 1.0, -1.0)
    return {
        "auc": auc(rows.labels, logits),
        "log_loss": float(np.logaddexp(0.0, -signs * logits).mean()),
    }


def alone(order: Order) -> dict[str, Any]:
    """Trains by one process with Paddle's own embeddings and optimizers."""
    import paddle
    from paddle import nn

    training, test = read(Path(order.data), order.seed)
    layout = order.layout()

    class Table(nn.Embedding):
        """Rows of all keys that there are, which begin as those of the servers do."""

        def __init__(self, name: str, keys: np.ndarray) -> None:
            self.keys = np.unique(keys)
            spec = layout.table(name)
            super().__init__(len(self.keys), spec.width)
            self.weight.set_value(spec.initial.rows(self.keys, spec.width))

        def forward(self, x: Any) -> Any:
            return super().forward(paddle.to_tensor(np.searchsorted(self.keys, x.numpy())))

    deep = Table("deep", np.concatenate([training.deep, test.deep]))
    wide = Table("wide", np.concatenate([training.wide, test.wide]))
    model = model_of(deep, wide, order.seed)
    rows = paddle.optimizer.Adagrad(0.05, epsilon=1e-8, parameters=[deep.weight, wide.weight])
    dense = paddle.optimizer.Adam(2e-3, parameters=model.dense())
    losses = []
    for step in range(order.steps):
        # Losses are told by worker: each on its part, as the mean of which they are trained.
        parts = [loss_of(model, batch_of(training, order, step, rank)) for rank in range(order.workers)]  # fmt: skip
        loss = sum(parts[1:], parts[0]) / order.workers
        loss.backward()
        for optimizer in (rows, dense):
            optimizer.step()
            optimizer.clear_grad()
        losses.append([float(one) for one in parts])
    return {"losses": losses, **tested(model, test)}


def worker(order: Order, rank: int) -> dict[str, Any]:
    """Trains as one of several over the servers' tables."""
    from oarlock.fleet_ext.parameter_server.embedding import DenseParameters, SparseEmbedding

    training, test = read(Path(order.data), order.seed)
    store = TcpStore("127.0.0.1", order.store, job=JOB, token=order.token)
    consistency: Any = Asynchronous()
    if order.mode == "synchronous":
        consistency = Synchronous(workers=order.workers, rank=rank)
    elif order.mode == "stale":
        consistency = StaleSynchronous(workers=order.workers, rank=rank, bound=2)
    losses, times = [], []
    with Client(store, token=order.token, job=JOB, consistency=consistency, timeout=90.0) as client:
        model = model_of(SparseEmbedding(client, "deep"), SparseEmbedding(client, "wide"), order.seed)  # fmt: skip
        tower = DenseParameters(client, "tower", model.dense())
        if rank == 0:
            tower.assign()
            store.set("ctr/assigned", b"")
        store.wait(["ctr/assigned"], 90.0)
        with Path(order.out, f"{rank}.steps").open("w") as log:
            for step in range(order.steps):
                tower.pull()
                loss = loss_of(model, batch_of(training, order, step, rank))
                loss.backward()
                tower.push()
                client.finish_step().wait()
                losses.append(float(loss))
                times.append(time.time())
                print(step, file=log, flush=True)
        client.flush()
        store.set(f"ctr/done/{rank}", b"")
        store.wait([f"ctr/done/{one}" for one in range(order.workers)], 90.0)
        tower.pull()
        found = tested(model, test)
    return {"losses": losses, "times": times, **found}


def main(arguments: Sequence[str]) -> None:
    order, rank = Order.unpack(arguments[0]), int(arguments[1])
    found = alone(order) if order.store == 0 else worker(order, rank)
    Path(order.out, f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
