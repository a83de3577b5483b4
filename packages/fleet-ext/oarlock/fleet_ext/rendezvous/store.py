"""What every store can do.

A store maps keys (text) to values (bytes). Every change has a revision, a number that only grows, and changes are seen
by all in one order. A key set with a lease is deleted when the lease expires, so a node that died, hangs or is cut
off is noticed by whoever watches its key.

Each change is applied once, even where its answer was lost and the call was repeated: a store that is restarted
within a call's deadline is not noticed by the caller. Where the deadline is over, `Unreachable` is raised, and a change
may or may not have been applied.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from oarlock.fleet_ext.rendezvous.leases import Lease

KEY_BYTES = 512
VALUE_BYTES = 1 << 19
LEASE_S = (0.1, 86400.0)  #: shortest and longest
LONGEST_CALL_S = 300.0  #: deadline of a single change: stores remember its answer for longer
_INTEGERS = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Change:
    """One key's.

    Args:
        value: None where the key was deleted.
        revision: of the store.
    """

    key: str
    value: bytes | None
    revision: int


class Store(ABC):
    """A key-value store, to be used by any number of threads, but not by a fork of the process.

    Args:
        where: the store, in messages.
        timeout: seconds that a call may take, waits and watches apart.

    Every method but `close` raises `ValueError` for a key, value or number that no store takes, and `StoreError`.
    """

    def __init__(self, where: str, timeout: float) -> None:
        if not 0 < timeout <= LONGEST_CALL_S:
            raise ValueError(
                f"timeout must be above 0 and at most {LONGEST_CALL_S:g} s, not {timeout}"
            )
        self.where, self.timeout = where, timeout

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """The key's value; None where there is none."""

    @abstractmethod
    def read(self, prefix: str) -> tuple[int, dict[str, bytes]]:
        """All keys that begin with the prefix, at one moment, and the revision to watch them from."""

    @abstractmethod
    def keys(self, prefix: str) -> list[str]:
        """The keys that begin with the prefix, sorted."""

    @abstractmethod
    def set(self, key: str, value: bytes, *, lease: Lease | None = None) -> None:
        """Sets the key; its earlier lease, if any, no longer counts.

        Raises:
            LeaseLost: that lease has expired.
        """

    @abstractmethod
    def add(self, key: str, amount: int) -> int:
        """Adds to a counter, of 64 bits, kept as decimal text; a missing one is 0.

        Returns:
            what it is now.

        Raises:
            ValueError: the key holds something else, or the sum is too large.
        """

    @abstractmethod
    def compare_set(
        self, key: str, expected: bytes | None, value: bytes, *, lease: Lease | None = None
    ) -> bool:
        """Sets the key if it has the expected value; None: if there is no such key.

        Returns:
            whether it was set.
        """

    @abstractmethod
    def delete(self, key: str) -> bool:
        """
        Returns:
            whether it was there.
        """

    @abstractmethod
    def wait(self, keys: Iterable[str], timeout: float) -> dict[str, bytes]:
        """Waits until all keys are there together.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: some are missing, which the message names.
            Unreachable: the store was not there at the end.
        """

    @abstractmethod
    def watch(self, prefix: str, since: int, timeout: float) -> tuple[int, list[Change]]:
        """Waits for changes of keys that begin with the prefix.

        Args:
            since: a revision that `read` or `watch` gave.
            timeout: seconds; 0 looks without waiting.

        Returns:
            the revision to watch from next, and all changes since, in order; none where the time is over. Changes of one
            revision (keys of one lease) come together.

        Raises:
            Outdated: they are no longer known, or the store has lost its keys.
            Unreachable: the store was not there at the end.
        """

    def lease(self, seconds: float) -> Lease:
        """A lease, which its `keep` or `renew` keeps from expiring.

        Args:
            seconds: until it expires. A store may give more: `Lease.seconds`.
        """
        if not LEASE_S[0] <= seconds <= LEASE_S[1]:
            raise ValueError(
                f"seconds must be between {LEASE_S[0]} and {LEASE_S[1]:.0f}, not {seconds}"
            )
        return Lease(self, seconds)

    @abstractmethod
    def grant(self, seconds: float) -> tuple[int, float]:
        """A new lease's number and seconds; `lease` is what to call."""

    @abstractmethod
    def keep(self, lease: int, timeout: float) -> None:
        """Lets a lease begin anew.

        Raises:
            LeaseLost: it has expired.
        """

    @abstractmethod
    def release(self, lease: int) -> None:
        """Ends a lease and deletes its keys; nothing happens where it is over."""

    @abstractmethod
    def close(self) -> None:
        """Ends its connections. Leases go on until they expire."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


def check_key(key: str, argument: str = "key") -> str:
    if not isinstance(key, str) or not 0 < len(key.encode()) <= KEY_BYTES:
        raise ValueError(f"{argument} must be text of 1 to {KEY_BYTES} bytes, not {key!r:.80}")
    return key


def check_prefix(prefix: str) -> str:
    return prefix if prefix == "" else check_key(prefix, "prefix")


def check_value(value: bytes, argument: str = "value") -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"{argument} must be bytes, not {type(value).__name__}")
    if len(value) > VALUE_BYTES:
        raise ValueError(f"{argument} must have at most {VALUE_BYTES} bytes, not {len(value)}")
    return value


def check_since(since: int) -> int:
    if not isinstance(since, int) or since <= 0:
        raise ValueError(f"since must be a revision that read or watch gave, not {since!r}")
    return since


def check_wait(timeout: float) -> float:
    if not timeout >= 0:
        raise ValueError(f"timeout must be at least 0 s, not {timeout}")
    return timeout


def check_amount(amount: int) -> int:
    if isinstance(amount, bool) or not isinstance(amount, int) or amount not in _INTEGERS:
        raise ValueError(f"amount must be an integer of 64 bits, not {amount!r:.80}")
    return amount


def counted(key: str, value: bytes | None, amount: int) -> int:
    """What a counter becomes."""
    try:
        total = int(value or b"0") + amount
    except ValueError:
        raise ValueError(f"{key!r} holds {value!r:.80}, which is no counter") from None
    if total not in _INTEGERS:
        raise ValueError(f"{key!r} would be {total}, which is beyond 64 bits")
    return total


def missing_keys(missing: Iterable[str], timeout: float, where: str) -> TimeoutError:
    names = sorted(missing)
    shown = ", ".join(map(repr, names[:20])) + (
        f" and {len(names) - 20} more" if len(names) > 20 else ""
    )
    return TimeoutError(f"keys missing after {timeout:g} s at {where}: {shown}")
