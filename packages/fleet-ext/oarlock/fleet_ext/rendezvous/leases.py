"""Leases: what is set with one is there as long as somebody keeps it."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from oarlock.fleet_ext.rendezvous.errors import Closed, LeaseLost, StoreError

_PART = 1 / 3  #: of a lease's seconds between two renewals


class Leasing(Protocol):
    """The part of a store that leases need."""

    def grant(self, seconds: float) -> tuple[int, float]: ...

    def keep(self, lease: int, timeout: float) -> None: ...

    def release(self, lease: int) -> None: ...


class Lease:
    """Made by `Store.lease`.

    Attributes:
        id: the store's number for it.
        seconds: that it lasts from each renewal.
    """

    def __init__(self, store: Leasing, seconds: float) -> None:
        self._store = store
        begun = time.monotonic()
        self.id, self.seconds = store.grant(seconds)
        self._until = begun + self.seconds
        self._over = threading.Event()
        self._renewing: threading.Thread | None = None

    @property
    def left(self) -> float:
        """Seconds for which it surely lives; less than 0 where it may have expired.

        Counted from when the last renewal was asked for, so whoever is cut off from the store knows when others may take
        over.
        """
        return self._until - time.monotonic()

    def keep(self) -> None:
        """Lets it begin anew.

        Raises:
            LeaseLost: it has expired.
            Unreachable: the store did not answer within the lease's seconds.
        """
        begun = time.monotonic()
        self._store.keep(self.id, self.seconds)
        self._until = begun + self.seconds

    def renew(self, lost: Callable[[Exception], None] | None = None) -> "Lease":
        """Keeps it in the background, three times in its seconds, until it is released.

        Args:
            lost: called once, from that thread, with the `LeaseLost` that ended it. While the store cannot be reached it
                is asked again and again: look at `left`.

        Returns:
            the lease.
        """
        if self._renewing is not None:
            raise ValueError("this lease is being renewed already")
        self._renewing = threading.Thread(
            target=self._renew, args=(lost,), name=f"lease {self.id}", daemon=True
        )
        self._renewing.start()
        return self

    def release(self) -> None:
        """Ends it: its keys are deleted at once."""
        self._over.set()
        if self._renewing is not None and self._renewing is not threading.current_thread():
            self._renewing.join()
        self._store.release(self.id)

    def _renew(self, lost: Callable[[Exception], None] | None) -> None:
        while not self._over.wait(self.seconds * _PART):
            try:
                self.keep()
            except LeaseLost as error:
                self._until = time.monotonic()
                if lost is not None:
                    lost(error)
                return
            except Closed:
                return
            except StoreError:
                continue  # it may come back; `left` tells how long the keys are safe
