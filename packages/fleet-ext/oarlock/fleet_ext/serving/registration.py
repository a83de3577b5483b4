"""Keys that a process keeps in a store for as long as it lives."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

from oarlock.fleet_ext.rendezvous import Lease, LeaseLost, Store, StoreError

_log = logging.getLogger(__name__)
_PAUSE_S = 0.3
LEASE_S = 2.0
CLOSE_S = 3.0
_ACTIONS = 64


class Registration:
    """Makes the store have what this process wants there, under one lease, in the background.

    Nothing here waits for the store: it may be away, or have lost everything, in which case all is written again.

    Args:
        store: where.
        name: of the process, in the log.
        seconds: after which the keys of a process that does not move are gone.
    """

    def __init__(self, store: Store, name: str, seconds: float = LEASE_S) -> None:
        self._store, self._name, self._seconds = store, name, seconds
        self._changed, self._over = threading.Condition(), False
        self._wanted: dict[str, bytes] = {}
        self._claims: dict[str, bytes] = {}
        self._actions: OrderedDict[str, Callable[[], object]] = OrderedDict()
        self._new = False
        self._lease: Lease | None = None
        self._written: dict[str, bytes] = {}
        self._held: frozenset[str] = frozenset()
        self._thread = threading.Thread(target=self._keep, name=f"registration {name}", daemon=True)
        self._thread.start()

    def want(self, keys: Mapping[str, bytes], claims: Mapping[str, bytes] | None = None) -> None:
        """
        Args:
            keys: all keys that are to be there; those of before that are not among them are deleted.
            claims: keys that are set only where nobody else has them.
        """
        with self._changed:
            if self._wanted == keys and self._claims == (claims or {}):
                return
            self._wanted, self._claims, self._new = dict(keys), dict(claims or {}), True
            self._changed.notify()

    def soon(self, name: str, action: Callable[[], object]) -> None:
        """Does something with the store in the background, again and again until the store has taken it.

        Of those that wait for a store that is away the latest are kept.

        Args:
            name: an action of that name that waits is replaced.
        """
        with self._changed:
            self._actions[name] = action
            if len(self._actions) > _ACTIONS:
                self._actions.popitem(last=False)
            self._new = True
            self._changed.notify()

    def holds(self, key: str) -> bool:
        """Whether this process has a claim that no other can have."""
        lease = self._lease
        return key in self._held and lease is not None and lease.left > 0

    def close(self) -> None:
        """Takes all keys away."""
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join(CLOSE_S)

    def _keep(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._new or self._over, _PAUSE_S)
                self._new = False
                wanted, claims, over = dict(self._wanted), dict(self._claims), self._over
            try:
                if not over:
                    self._match(wanted, claims)
                self._act()
                if over:
                    if self._lease is not None:
                        self._lease.release()
                    return
            except LeaseLost:
                self._lost()
            except StoreError as error:
                _log.debug("registration of %s: %s", self._name, error)
                if over:
                    return

    def _match(self, wanted: dict[str, bytes], claims: dict[str, bytes]) -> None:
        if self._lease is None or self._lease.left <= 0:
            self._lost()
            self._lease = self._store.lease(self._seconds).renew(lambda error: self._wake())
        lease = self._lease
        for key, value in wanted.items():  # first what is new, then what is no more
            if self._written.get(key) != value:
                self._store.set(key, value, lease=lease)
                self._written[key] = value
        for key, value in claims.items():
            if key not in self._held and self._store.compare_set(key, None, value, lease=lease):
                self._written[key] = value
                self._held |= {key}
        for key in self._written.keys() - wanted.keys() - claims.keys():
            if lease.left <= 0:
                raise LeaseLost("it may be over, and the key another's")
            self._store.delete(key)
            del self._written[key]
            self._held -= {key}

    def _act(self) -> None:
        while True:
            with self._changed:
                if not self._actions:
                    return
                name, action = next(iter(self._actions.items()))
            action()
            with self._changed:
                if self._actions.get(name) is action:
                    del self._actions[name]

    def _lost(self) -> None:
        if self._lease is not None:
            _log.warning("%s was taken for lost by the store, and comes again", self._name)
        self._lease, self._written, self._held = None, {}, frozenset()

    def _wake(self) -> None:
        with self._changed:
            self._new = True
            self._changed.notify()
