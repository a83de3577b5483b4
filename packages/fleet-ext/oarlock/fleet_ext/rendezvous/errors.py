"""What can go wrong with a store. All are `StoreError`, a `ConnectionError`."""


class StoreError(ConnectionError):
    """A store could not do what it was asked; the message says which store, what, and why."""


class Unreachable(StoreError):
    """Nobody answered within the deadline, or the store refused the connection."""


class LeaseLost(StoreError):
    """The lease expired or was released: the keys set with it are gone."""


class Outdated(StoreError):
    """Changes since that revision are no longer known: `read` the keys, and watch from the revision it gives."""


class Closed(StoreError):
    """`close` was called."""
