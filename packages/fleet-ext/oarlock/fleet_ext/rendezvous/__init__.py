"""Key-value stores through which the ranks of a job find each other and agree on who is a member.

>>> server = StoreServer(job="train", token=token, port=7000)
>>> store = TcpStore("10.0.0.1", 7000, job="train", token=token)
>>> leader = store.compare_set("leader", None, b"node 3", lease=store.lease(1.5).renew())
>>> revision, members = store.read("members/")
>>> revision, changes = store.watch("members/", revision, timeout=10.0)
"""

from oarlock.fleet_ext.rendezvous.client import TcpStore
from oarlock.fleet_ext.rendezvous.errors import (
    Closed,
    LeaseLost,
    Outdated,
    StoreError,
    Unreachable,
)
from oarlock.fleet_ext.rendezvous.etcd import EtcdStore
from oarlock.fleet_ext.rendezvous.journal import JournalError
from oarlock.fleet_ext.rendezvous.leases import Lease
from oarlock.fleet_ext.rendezvous.server import StoreServer
from oarlock.fleet_ext.rendezvous.service import Limits
from oarlock.fleet_ext.rendezvous.store import Change, Store

__all__ = [
    "Change",
    "Closed",
    "EtcdStore",
    "JournalError",
    "Lease",
    "LeaseLost",
    "Limits",
    "Outdated",
    "Store",
    "StoreError",
    "StoreServer",
    "TcpStore",
    "Unreachable",
]
