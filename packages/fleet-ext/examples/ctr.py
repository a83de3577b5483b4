"""Logistic regression with factors over a parameter server, on the census or any CSV file of categories.

    oarlock-fleet launch --ranks 2 packages/fleet-ext/examples/ctr.py adult.csv.gz income-per-year

Each rank is a worker and, in the same process, a server of tables; larger jobs start servers by `oarlock-fleet tables`.
The model is a factorisation machine (Rendle, 2010): a bias, a weight for each category, and products of 8 factors.
"""

import csv
import gzip
import hashlib
import sys

import numpy as np
import paddle
from oarlock.fleet_ext import join
from oarlock.fleet_ext.parameter_server import (
    AdaGrad,
    Client,
    Layout,
    Normal,
    Sparse,
    Synchronous,
    TableServer,
)
from oarlock.fleet_ext.parameter_server.embedding import SparseEmbedding
from paddle import nn

STEPS, BATCH, FACTORS = 300, 128, 8
STEP = AdaGrad(rate=0.05)
LAYOUT = Layout(
    shards=16,
    tables={
        "weights": Sparse(width=1, optimizer=STEP, initial=Normal(deviation=0.0)),
        "factors": Sparse(width=FACTORS, optimizer=STEP, initial=Normal(deviation=0.05)),
    },
)


class FactorizationMachine(nn.Layer):
    """Sum of weights, and of the products of all pairs of factors: half of (sum v)² - sum v²."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.weights = SparseEmbedding(client, "weights")
        self.factors = SparseEmbedding(client, "factors")

    def forward(self, keys: paddle.Tensor) -> paddle.Tensor:
        factors = self.factors(keys)  # [batch, fields, factors]
        pairs = paddle.square(factors.sum(1)) - paddle.square(factors).sum(1)
        return self.weights(keys).sum(1) + 0.5 * pairs.sum(1, keepdim=True)


def key(field: str, value: str) -> int:
    """64 bits of a category; a column that every row has is the bias."""
    digest = hashlib.blake2b(f"{field}={value.strip()}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def read(path: str, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Keys [rows, fields] and labels [rows, 1]: whether the target is the rarer of its two values."""
    with gzip.open(path, "rt") if path.endswith(".gz") else open(path) as file:
        lines = list(csv.DictReader(file))
    if target not in lines[0]:
        raise ValueError(f"target must be a column of {path}: {', '.join(lines[0])}")
    values, counts = np.unique([line[target].strip() for line in lines], return_counts=True)
    rare = values[counts.argmin()]
    keys = [
        [key(name, value) for name, value in line.items() if name != target] + [key("bias", "")]
        for line in lines
    ]
    return np.array(keys), np.array([[line[target].strip() == rare] for line in lines], np.float32)


def main(path: str, target: str) -> None:
    keys, labels = read(path, target)
    with join() as job:
        token, name = job.place.token, job.place.job
        server = TableServer(
            job.store, layout=LAYOUT, token=token, job=name, name=f"rank-{job.rank}"
        )
        consistency = Synchronous(workers=job.size, rank=job.rank)
        with Client(job.store, token=token, job=name, consistency=consistency) as client:
            model = FactorizationMachine(client)
            for step in range(client.step, STEPS):
                chosen = np.random.default_rng([step, job.rank]).integers(0, len(keys), BATCH)
                logits = model(paddle.to_tensor(keys[chosen]))
                loss = nn.functional.binary_cross_entropy_with_logits(
                    logits, paddle.to_tensor(labels[chosen])
                )
                loss.backward()
                client.finish_step()
                if step % 50 == 0 and job.rank == 0:
                    print(f"step {step}: loss {float(loss):.4f}")
            client.flush()
        job.group.barrier().wait()  # nobody ends its server while another needs it
        print(f"{server.status()['rows']} rows are led here")
        job.group.barrier().wait()
        server.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
