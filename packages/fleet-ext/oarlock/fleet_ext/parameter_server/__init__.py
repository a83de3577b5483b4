"""A parameter server: tables that many workers train, on servers that may fail, come and go.

>>> layout = Layout(tables={"embedding": Sparse(width=16, optimizer=AdaGrad(rate=0.05))})
>>> server = TableServer(store, layout=layout, token=token)                # one in each of some processes
>>> client = Client(store, token=token)                                    # in each worker
>>> rows = client.pull("embedding", keys).wait()
>>> client.push("embedding", keys, gradients)
"""

from oarlock.fleet_ext.parameter_server.client import Client
from oarlock.fleet_ext.parameter_server.consistency import (
    Asynchronous,
    StaleSynchronous,
    Synchronous,
)
from oarlock.fleet_ext.parameter_server.errors import TablesError, Unavailable, WorkerLost
from oarlock.fleet_ext.parameter_server.initial import Constant, Normal, Uniform
from oarlock.fleet_ext.parameter_server.layout import Dense, Layout, Sparse
from oarlock.fleet_ext.parameter_server.membership import clear
from oarlock.fleet_ext.parameter_server.optimizers import AdaGrad, Adam, Sgd
from oarlock.fleet_ext.parameter_server.reader import Read, Reader
from oarlock.fleet_ext.parameter_server.server import TableServer

__all__ = [
    "AdaGrad",
    "Adam",
    "Asynchronous",
    "Client",
    "Constant",
    "Dense",
    "Layout",
    "Normal",
    "Read",
    "Reader",
    "Sgd",
    "Sparse",
    "StaleSynchronous",
    "Synchronous",
    "TableServer",
    "TablesError",
    "Unavailable",
    "Uniform",
    "WorkerLost",
    "clear",
]
