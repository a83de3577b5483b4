"""A process's place in a job, and its way to the other ranks.

>>> with join() as job:                       # in a script that `oarlock-fleet launch` started
...     job.group.all_reduce(gradient, "mean").wait()
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from oarlock.fleet_ext.attendance import TOLD_S, attend
from oarlock.fleet_ext.failing import FailureWatch
from oarlock.fleet_ext.rendezvous import Store, TcpStore
from oarlock.fleet_ext.transport import Listener, Mesh, MeshGroup, Tls, connect
from oarlock.fleet_ext.transport.connecting import CONNECT_S

_PREFIX = "OARLOCK_FLEET_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a launcher tells a process.

    Args:
        job: name.
        rank, size: of this process, among all.
        local_rank: among those of its machine.
        store: address of the job's store, host and port.
        token: the job's secret.
        host: by which other machines reach this one.
        tls: folder with rank.pem, rank.key and authority.pem, for encrypted connections.
        local_size: processes of each machine; None where that is not known.
        threads: that this process computes with; None for what Paddle takes.
        shared: whether ranks of one machine use memory that they share.
    """

    job: str
    rank: int
    size: int
    local_rank: int
    store: tuple[str, int]
    token: str
    host: str = "127.0.0.1"
    tls: Path | None = None
    local_size: int | None = None
    threads: int | None = None
    shared: bool = True

    def environment(self) -> dict[str, str]:
        """As variables, for `Place.read` in the process."""
        host, port = self.store
        values = {"JOB": self.job, "RANK": self.rank, "SIZE": self.size, "LOCAL_RANK": self.local_rank,
                  "STORE": f"{host}:{port}", "TOKEN": self.token, "HOST": self.host}  # fmt: skip
        more = {"TLS": self.tls, "LOCAL_SIZE": self.local_size, "THREADS": self.threads}
        more["SHARED"] = None if self.shared else 0
        values |= {name: value for name, value in more.items() if value is not None}
        return {_PREFIX + name: str(value) for name, value in values.items()}

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None) -> Self:
        """From this process's environment.

        Raises:
            ValueError: nobody launched it, or a variable is not what it should be.
        """
        given = os.environ if environment is None else environment
        names = ("JOB", "RANK", "SIZE", "LOCAL_RANK", "STORE", "TOKEN")
        missing = [_PREFIX + name for name in names if _PREFIX + name not in given]
        if missing:
            raise ValueError(
                f"{', '.join(missing)} must be set: start the script by `oarlock-fleet launch --ranks 2 script.py`"
            )
        host, _, port = given[_PREFIX + "STORE"].rpartition(":")
        tls = given.get(_PREFIX + "TLS")
        return cls(
            job=given[_PREFIX + "JOB"],
            rank=_number(given, "RANK"),
            size=_number(given, "SIZE"),
            local_rank=_number(given, "LOCAL_RANK"),
            store=(host, int(port)),
            token=given[_PREFIX + "TOKEN"],
            host=given.get(_PREFIX + "HOST", "127.0.0.1"),
            tls=Path(tls) if tls else None,
            local_size=_number(given, "LOCAL_SIZE") if _PREFIX + "LOCAL_SIZE" in given else None,
            threads=_number(given, "THREADS") if _PREFIX + "THREADS" in given else None,
            shared=given.get(_PREFIX + "SHARED", "1") != "0",
        )


class Job:
    """This rank's connections.

    Attributes:
        place: what the launcher said.
        store: which all ranks share.
        mesh: connections to all of them.
        group: all ranks.
    """

    def __init__(self, place: Place, store: Store, listener: Listener, mesh: Mesh) -> None:
        self.place, self.store, self.mesh = place, store, mesh
        self._listener = listener
        self.group = MeshGroup(mesh, range(place.size), "all")

    @property
    def rank(self) -> int:
        return self.place.rank

    @property
    def size(self) -> int:
        return self.place.size

    def close(self) -> None:
        """Says farewell to the other ranks."""
        self.group.close()
        self.mesh.close()
        self._listener.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.group.abort(f"{type(error).__name__}: {error}")
        self.close()


def join(
    place: Place | None = None, *, sockets: int = 1, timeout: float = CONNECT_S,
    told: Callable[[str], None] | None = None,
) -> Job:  # fmt: skip
    """Connects this process with all others of its job; from here on an uncaught error of one ends all (`failing`).

    Args:
        place: where it is; what the launcher says if this is None.
        sockets: to each other rank.
        timeout: seconds until all are there.
        told: called with whom this waits for; the first rank of each machine writes it to standard error otherwise.

    Raises:
        ValueError: nobody launched this process.
        StoreError: the job's store cannot be reached, or refuses this process.
        TransportError: ranks are missing, which the message names.
    """
    watch = None
    if place is None:
        place = Place.read()
        watch = FailureWatch(place.rank)
    tls = tls_of(place.tls) if place.tls is not None else None
    store = TcpStore(*place.store, job=place.job, token=place.token, tls=tls)
    listener = Listener(
        job=place.job, token=place.token, host=place.host, tls=tls, shared=place.shared
    )
    use_threads(place.threads)
    try:
        with TcpStore(
            *place.store, job=place.job, token=place.token, tls=tls, timeout=TOLD_S
        ) as door:
            attend(door, place.rank, place.size, local_size=place.local_size, timeout=timeout,
                   told=told or (_say if place.local_rank == 0 else lambda words: None))  # fmt: skip
        mesh = connect(store, listener, rank=place.rank, size=place.size, token=place.token, tls=tls,
                       sockets=sockets, timeout=timeout)  # fmt: skip
    except BaseException:
        listener.close()
        store.close()
        raise
    job = Job(place, store, listener, mesh)
    if watch is not None:
        watch.abort = job.group.abort
    return job


def use_threads(count: int | None) -> None:
    """Tells Paddle, where the script has imported it, how many threads to compute with; None leaves it."""
    if count is not None and "paddle" in sys.modules:
        sys.modules["paddle"].base.core.set_num_threads(count)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def tls_of(folder: Path) -> Tls:
    """The certificates of a folder: rank.pem, rank.key and authority.pem."""
    return Tls(
        certificate=folder / "rank.pem",
        key=folder / "rank.key",
        authority=folder / "authority.pem",
    )


def _number(given: Mapping[str, str], name: str) -> int:
    try:
        return int(given[_PREFIX + name])
    except ValueError:
        raise ValueError(
            f"{_PREFIX + name} must be a number, not {given[_PREFIX + name]!r}"
        ) from None
