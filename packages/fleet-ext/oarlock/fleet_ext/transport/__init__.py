"""Groups of ranks that exchange arrays: over TCP, memory of one machine, Paddle's gloo or NCCL.

>>> group = MeshGroup(connect(store, listener, rank=rank, size=4, token=token), range(4), "all")
>>> work = group.all_reduce(gradient, op="mean")  # goes on in the background
>>> work.wait()
"""

from oarlock.fleet_ext.transport.connecting import connect
from oarlock.fleet_ext.transport.errors import (
    Aborted,
    Disagreement,
    NotConnected,
    PeerLost,
    Refused,
    TimedOut,
    TransportError,
)
from oarlock.fleet_ext.transport.group import Group, MeshGroup
from oarlock.fleet_ext.transport.listener import Listener
from oarlock.fleet_ext.transport.mesh import Mesh
from oarlock.fleet_ext.transport.wire import Tls, new_token
from oarlock.fleet_ext.transport.work import Work

__all__ = [
    "Aborted",
    "Disagreement",
    "Group",
    "Listener",
    "Mesh",
    "MeshGroup",
    "NotConnected",
    "PeerLost",
    "Refused",
    "TimedOut",
    "Tls",
    "TransportError",
    "Work",
    "connect",
    "new_token",
]
