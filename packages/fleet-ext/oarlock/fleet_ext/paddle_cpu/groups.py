"""Groups for `paddle.distributed`, over one mesh of connections between all ranks."""

import atexit
import itertools
import os
import threading
import time
from collections.abc import Iterable
from typing import Any

from paddle.base import core

from oarlock.fleet_ext.paddle_cpu.process_group import CpuProcessGroup
from oarlock.fleet_ext.transport import (
    Listener,
    Mesh,
    MeshGroup,
    Tls,
    TransportError,
    connect,
    new_token,
)
from oarlock.fleet_ext.transport.gloo_context import open_group

_POLL_S = 0.01
#: Of this process: Paddle's store keeps the keys of earlier ones.
_installations = itertools.count()


class PaddleStore:
    """The key-value store with which Paddle's ranks find each other, as our transport wants it.

    Waiting in Paddle's store cannot be given a time, so keys are asked for again and again.

    Args:
        store: Paddle's.
        prefix: of all keys.
    """

    def __init__(self, store: Any, prefix: str) -> None:
        self._store, self._prefix, self._lock = store, prefix, threading.Lock()

    def set(self, key: str, value: bytes) -> None:
        with self._lock:
            self._store.set(self._prefix + key, value.decode())
            self._store.add(f"{self._prefix}{key}/set", 1)

    def wait(self, keys: Iterable[str], timeout: float) -> dict[str, bytes]:
        """
        Raises:
            TimeoutError: some are missing, which the message names.
        """
        until, found = time.monotonic() + timeout, dict[str, bytes]()
        missing = list(keys)
        while True:
            with self._lock:
                there = [
                    key for key in missing if self._store.add(f"{self._prefix}{key}/set", 0) > 0
                ]
                found |= {key: bytes(self._store.get(self._prefix + key)) for key in there}
            missing = [key for key in missing if key not in found]
            if not missing:
                return found
            if time.monotonic() > until:
                raise TimeoutError(f"keys missing after {timeout:g} s: {', '.join(missing)}")
            time.sleep(_POLL_S)

    def tell(self, key: str, number: int) -> None:
        """Writes a number from 0, once; faster than `set`, after which Paddle's store is silent for 40 ms."""
        with self._lock:
            self._store.add(self._prefix + key, number + 1)

    def told(self, key: str, timeout: float) -> int:
        """
        Raises:
            TimeoutError: nobody told.
        """
        until = time.monotonic() + timeout
        while True:
            with self._lock:
                number = self._store.add(self._prefix + key, 0)
            if number > 0:
                return number - 1
            if time.monotonic() > until:
                raise TimeoutError(f"{key} was not told in {timeout:g} s")
            time.sleep(_POLL_S)


class Groups:
    """Makes a process's groups; the first one connects all ranks of the job.

    Args:
        token: the job's secret; None: the first rank makes one, which the others find in Paddle's store.
        host: this rank's address; None: that of Paddle's `PADDLE_CURRENT_ENDPOINT`.
        tls: certificates for encrypted connections.
        timeout: seconds for an operation, and for all ranks to come.
    """

    def __init__(
        self, token: str | None, host: str | None, tls: Tls | None, timeout: float
    ) -> None:
        self._token, self._host, self._tls, self._timeout = token, host, tls, timeout
        self._installation = next(_installations)
        self._store: PaddleStore | None = None
        self._listener: Listener | None = None
        self._mesh: Mesh | None = None
        self._made: list[CpuProcessGroup] = []

    def make(
        self, backend: str, store: Any, rank: int, world_size: int, group_name: str,
        pg_options: Any, group_id: int = 0, nccl_comm_init_option: int = 0, nccl_config: Any = None,
    ) -> CpuProcessGroup:  # fmt: skip
        """Takes the place of `paddle.distributed.collective._new_process_group_impl`.

        Raises:
            ValueError: another backend than gloo was asked for.
            TransportError: not all ranks came.
        """
        if backend != "gloo":
            raise ValueError(f"backend must be gloo where all ranks are CPUs, not {backend!r}")
        mesh, found = self._connected(store)
        ranks = self._members(mesh, found, rank, world_size, group_id)

        def open_transport(restarts: int) -> MeshGroup:
            return MeshGroup(mesh, ranks, f"paddle {group_id}.{restarts}", self._timeout)

        def open_gloo() -> Any:
            assert self._host is not None
            return open_group(found, f"paddle {group_id}", rank=rank, size=world_size, host=self._host,
                              timeout=self._timeout, number=group_id)  # fmt: skip

        group = CpuProcessGroup(open_transport, open_gloo)
        self._made.append(group)
        return group

    def settle(self, *_: Any) -> None:
        """Waits for all that was begun, in all groups.

        Raises:
            TransportError: an operation failed.
        """
        for group in self._made:
            group.settle()

    def close(self) -> None:
        """Ends all connections; groups made before are of no use after this."""
        if self._mesh is not None:
            self._mesh.close()
        if self._listener is not None:
            self._listener.close()

    def _connected(self, store: Any) -> tuple[Mesh, PaddleStore]:
        if self._mesh is None or self._store is None:
            rank, size = (int(os.environ[f"PADDLE_TRAINER{name}"]) for name in ("_ID", "S_NUM"))
            if self._host is None:
                self._host = os.environ["PADDLE_CURRENT_ENDPOINT"].rpartition(":")[0]
            self._store = PaddleStore(
                store or core.create_or_get_global_tcp_store(), f"oarlock/{self._installation}/"
            )
            token = self._token or self._agreed_token(self._store, rank)
            self._listener = Listener(job="paddle", token=token, host=self._host, tls=self._tls)
            self._mesh = connect(self._store, self._listener, rank=rank, size=size, token=token,
                                 tls=self._tls, timeout=self._timeout)  # fmt: skip
            # Who leaves without a farewell may take with it what others have not read yet.
            atexit.register(self.close)
        return self._mesh, self._store

    def _members(
        self, mesh: Mesh, store: PaddleStore, rank: int, size: int, number: int
    ) -> list[int]:
        """A group's ranks in the job: Paddle does not say at this place, so they tell each other."""
        if size == mesh.size:
            return list(range(size))
        store.tell(f"group/{number}/{rank}", mesh.rank)
        try:
            return [store.told(f"group/{number}/{one}", self._timeout) for one in range(size)]
        except TimeoutError as error:
            raise TransportError(f"not all ranks of group {number} came: {error}") from error

    def _agreed_token(self, store: PaddleStore, rank: int) -> str:
        if rank == 0:
            store.set("token", new_token().encode())
        return store.wait(["token"], self._timeout)["token"].decode()
