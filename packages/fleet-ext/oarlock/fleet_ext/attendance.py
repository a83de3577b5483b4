"""Who of a job has come, so that waiting for the others is not silent."""

import time
from collections.abc import Callable, Sequence

from oarlock.fleet_ext.rendezvous import Store, Unreachable
from oarlock.fleet_ext.transport import NotConnected, Refused

TOLD_S = 5.0  #: between two words on whom one waits for
_HERE = "here/"


def attend(
    store: Store, rank: int, size: int, *, local_size: int | None, timeout: float,
    told: Callable[[str], None],
) -> None:  # fmt: skip
    """Says that this rank is there, and waits until all are.

    Args:
        store: which gives up soon, so that waiting for it is told, too (`timeout=TOLD_S`).
        local_size: ranks of each machine, to name machines; None where that is not known.
        timeout: seconds, for the store and for all ranks.
        told: called with whom this waits for.

    Raises:
        StoreError: the store cannot be reached, or refuses this rank.
        NotConnected: ranks are missing, which the message names.
    """
    until = time.monotonic() + timeout
    _until_there(store, rank, until, told)
    while True:
        seconds = min(TOLD_S, max(0.0, until - time.monotonic()))
        try:
            store.wait([f"{_HERE}{one}" for one in range(size)], seconds)
            return
        except TimeoutError:
            there = set(store.keys(_HERE))
        missing = [one for one in range(size) if f"{_HERE}{one}" not in there]
        if not missing:
            continue
        who = _named(missing, local_size)
        if time.monotonic() >= until:
            raise NotConnected(
                f"{who} did not come within {timeout:g} s: is `oarlock-fleet launch` running there, with the same --ranks,"
                " --nodes and --job, and can it reach this machine?",
                missing,
            )
        told(
            f"rank {rank} waits for {who}, {max(0.0, until - time.monotonic()):.0f} s more at most"
        )


def _until_there(store: Store, rank: int, until: float, told: Callable[[str], None]) -> None:
    """The store's machine may begin later than this one."""
    while True:
        try:
            store.set(f"{_HERE}{rank}", b"")
            return
        except Unreachable as error:
            if isinstance(error.__cause__, Refused):
                raise Unreachable(
                    f"the {store.where} refuses rank {rank}: {error.__cause__}. Give --token-file, --job and --tls alike on"
                    " all machines"
                ) from error.__cause__
            if time.monotonic() >= until:
                raise
            told(f"rank {rank} waits for the {store.where}: {error.__cause__}")


def _named(ranks: Sequence[int], local_size: int | None) -> str:
    """ "ranks 2, 3 (machine 1)"."""
    words = f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
    if local_size is None:
        return words
    machines = sorted({rank // local_size for rank in ranks})
    return f"{words} (machine{'s' * (len(machines) > 1)} {', '.join(map(str, machines))})"
