"""A copy of a part of a store, which follows its changes."""

import logging
import threading
import time
from collections.abc import Callable, Mapping

from oarlock.fleet_ext.rendezvous import Closed, Outdated, Store, StoreError

_log = logging.getLogger(__name__)
_WATCH_S = 5.0
_PAUSE_S = 0.3
GRACE_S = 5.0  #: for which keys are kept that a store has lost


class Mirror:
    """
    What the store had last stays while it cannot be reached. Where it has lost its keys (a restart without a journal),
    the old ones stay for a while, in which their owners write them again.

    Args:
        store: to follow.
        prefix: of the keys.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._revision, found = store.read(prefix)
        self.values: Mapping[str, bytes] = found  #: replaced, never changed
        self._doubtful: dict[str, float] = (
            {}
        )  #: keys that the store has lost, and until when they stay
        self._over, self._telling = threading.Event(), threading.Lock()

    def follow(self, changed: Callable[[], object]) -> None:
        """From now on takes the store's changes, since it was read.

        Args:
            changed: called from another thread after each of them.
        """
        self._changed = changed
        threading.Thread(target=self._follow, name=f"mirror of {self._prefix}", daemon=True).start()

    def close(self) -> None:
        """No change is told any more."""
        with self._telling:
            self._over.set()

    def _follow(self) -> None:
        lost = False
        while not self._over.is_set():
            try:
                if lost:
                    self._read_again()
                    lost = False
                wait = _PAUSE_S if self._doubtful else _WATCH_S
                self._revision, changes = self._store.watch(self._prefix, self._revision, wait)
            except Outdated:
                lost = True
                continue
            except Closed:
                return
            except StoreError as error:
                _log.debug("%s cannot be followed: %s", self._prefix, error)
                self._over.wait(_PAUSE_S)
                continue
            values = dict(self.values)
            for change in changes:
                self._doubtful.pop(change.key, None)
                if change.value is None:
                    values.pop(change.key, None)
                else:
                    values[change.key] = change.value
            self._take(values)

    def _read_again(self) -> None:
        revision, found = self._store.read(self._prefix)
        until = time.monotonic() + GRACE_S
        for key in self.values.keys() - found.keys():
            self._doubtful.setdefault(key, until)
        self._revision = revision
        self._take({**self.values, **found})

    def _take(self, values: dict[str, bytes]) -> None:
        now = time.monotonic()
        for key in [key for key, until in self._doubtful.items() if now > until]:
            del self._doubtful[key]
            values.pop(key, None)
        if values != self.values:
            self.values = values
            with self._telling:
                if not self._over.is_set():
                    self._changed()
