"""Tables in Paddle's models.

>>> embedding = SparseEmbedding(client, "embedding")
>>> tower = DenseParameters(client, "tower", model.parameters())
>>> tower.pull()                                  # at the beginning of a step
>>> loss = model(embedding(ids)); loss.backward() # rows' gradients are on their way
>>> tower.push()
>>> client.finish_step()
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import paddle
from paddle import nn

from oarlock.fleet_ext.parameter_server.client import Client
from oarlock.fleet_ext.parameter_server.layout import Dense, Sparse
from oarlock.fleet_ext.parameter_server.reader import Reader
from oarlock.fleet_ext.transport.arrays import view_of


class SparseEmbedding(nn.Layer):
    """Rows of a table by key, instead of `nn.Embedding`: any int64 is a key.

    The forward pass pulls each key once; the backward pass pushes the sum of its gradients, in the background:
    what goes wrong there is raised by the client's `finish_step` or `flush`.

    Args:
        source: a `Client`, or for inference a `Reader`, with which nothing is pushed.
        table: name of a sparse table.

    Shape: int64 [...] to float32 [..., width], on the CPU.
    """

    def __init__(self, source: Client | Reader, table: str) -> None:
        super().__init__()
        spec = source.layout.table(table)
        if not isinstance(spec, Sparse):
            raise ValueError(f"table must be a sparse one, and {table!r} is dense")
        self._source, self._table, self.width = source, table, spec.width

    def forward(self, keys: paddle.Tensor) -> paddle.Tensor:
        given = np.asarray(keys.numpy(), np.int64)
        unique, places = np.unique(given, return_inverse=True)
        if isinstance(self._source, Reader):
            found = self._source.read(self._table, unique).rows
        else:
            found = self._source.pull(self._table, unique).wait()
        rows = paddle.to_tensor(found)
        if isinstance(self._source, Client) and self.training and paddle.is_grad_enabled():
            client = self._source
            rows.stop_gradient = False
            rows.register_hook(lambda gradient: self._push(client, unique, gradient))
        out = paddle.gather(rows, paddle.to_tensor(places.reshape(-1)))
        return out.reshape([*given.shape, self.width])

    def _push(self, client: Client, keys: np.ndarray, gradient: paddle.Tensor) -> None:
        try:
            client.push(self._table, keys, gradient.numpy())
        except ValueError as error:  # Paddle would wrap it into one of its own
            client.note(error)


class DenseParameters:
    """Parameters that lie in one dense table, one behind the other, and whose steps the servers take.

    Args:
        client: of this worker.
        table: name of a dense table of shape [count of all numbers].
        parameters: float32, on the CPU.
    """

    def __init__(self, client: Client, table: str, parameters: Iterable[Any]) -> None:
        self._client, self._table = client, table
        self._parameters = list(parameters)
        self._ends = np.cumsum([int(np.prod(one.shape)) for one in self._parameters])
        count = int(self._ends[-1]) if self._parameters else 0
        spec = client.layout.table(table)
        if not isinstance(spec, Dense) or spec.shape != (count,):
            raise ValueError(f"table {table!r} must be dense with shape ({count},), as these parameters are")  # fmt: skip

    def assign(self) -> None:
        """Sets the table to what the parameters are; by one worker, before the others pull."""
        values = [view_of(one).reshape(-1) for one in self._parameters]
        self._client.assign_dense(self._table, np.concatenate(values)).wait()

    def pull(self) -> None:
        """Sets the parameters to what the table is."""
        found = self._client.pull_dense(self._table).wait()
        for one, values in zip(self._parameters, np.split(found, self._ends[:-1]), strict=True):
            view_of(one)[...] = values.reshape(one.shape)

    def push(self) -> None:
        """Pushes the gradients, in the background, and clears them."""
        pieces = []
        for one in self._parameters:
            gradient = one.grad
            size = int(np.prod(one.shape))
            pieces.append(np.zeros(size, np.float32) if gradient is None else gradient.numpy().reshape(-1))  # fmt: skip
            one.clear_gradient(False)
        self._client.push_dense(self._table, np.concatenate(pieces))
