"""Changes in etcd that are made once, even when their answer is lost and they are asked for again.

Each is a transaction that also writes which request it was, in a key of its slot, on condition that this key is as
the slot's last request left it. If it is not, the request was made already.
"""

import math
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from oarlock.fleet_ext.rendezvous.errors import LeaseLost
from oarlock.fleet_ext.rendezvous.gateway import (
    NOT_FOUND,
    Gateway,
    GatewayError,
    Json,
    coded,
    decoded,
)
from oarlock.fleet_ext.rendezvous.leases import Lease

_MARKS_S = 3600  #: that the last request of a client which is gone is known


class _Slot:
    """A place for requests that come one after the other; `revision` is that of its last mark."""

    def __init__(self, prefix: str) -> None:
        self.key = coded(prefix + secrets.token_hex(12))
        self.number, self.revision = 0, "0"


class Marks:
    """
    Args:
        prefix: of their keys.
    """

    def __init__(self, gateway: Gateway, prefix: str) -> None:
        self._gateway, self._prefix = gateway, prefix
        self._lock = threading.Lock()
        self._idle: list[_Slot] = []
        self._lease, self._granted = "", -math.inf

    def change(
        self, conditions: list[Json], operation: Json, lease: Lease | None, until: float
    ) -> bool:
        """Makes a change if the conditions hold.

        Args:
            lease: that the change names.
            until: on the monotonic clock.

        Returns:
            whether they did.

        Raises:
            LeaseLost: the lease has expired.
            GatewayError: etcd refuses.
            Unreachable: no member answered in time; the change may or may not have been made.
        """
        with self._slot() as slot:
            slot.number += 1
            renewed = False
            while True:
                try:
                    reply = self._try(slot, conditions, operation, until)
                except GatewayError as error:
                    if error.code != NOT_FOUND:
                        raise
                    # A lease was not found: the change's, or that of the marks.
                    if renewed and lease is not None:
                        raise LeaseLost(
                            f"{self._gateway.where}: lease {lease.id} has expired"
                        ) from error
                    if renewed:
                        raise
                    self._granted, renewed = -math.inf, True
                    continue
                if reply.get("succeeded"):
                    slot.revision = reply["header"]["revision"]
                    return True
                marks = reply["responses"][0]["response_range"].get("kvs")
                revision = marks[0]["mod_revision"] if marks else "0"
                if revision == slot.revision:
                    return False
                slot.revision = revision
                if marks and decoded(marks[0]["value"]) == str(slot.number).encode():
                    return True  # it was made, and the answer was lost

    def _try(self, slot: _Slot, conditions: list[Json], operation: Json, until: float) -> Json:
        if time.monotonic() - self._granted > _MARKS_S / 2:
            asked = {"TTL": str(_MARKS_S), "ID": "0"}
            self._lease = self._gateway.post("lease/grant", asked, until)["ID"]
            self._granted = time.monotonic()
        mark = {"key": slot.key, "value": coded(str(slot.number)), "lease": self._lease}
        unmarked = {"key": slot.key, "target": "MOD", "mod_revision": slot.revision}
        body = {
            "compare": [*conditions, unmarked],
            "success": [operation, {"request_put": mark}],
            "failure": [{"request_range": {"key": slot.key}}],
        }
        return self._gateway.post("kv/txn", body, until)

    @contextmanager
    def _slot(self) -> Iterator[_Slot]:
        with self._lock:
            slot = self._idle.pop() if self._idle else _Slot(self._prefix)
        try:
            yield slot
        finally:
            with self._lock:
                self._idle.append(slot)
