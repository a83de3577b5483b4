"""A worker's tables: rows are pulled, gradients are pushed, in the background and through the failure of servers.

>>> with Client(store, token=token, consistency=Synchronous(workers=2, rank=0)) as client:
...     rows = client.pull("embedding", keys).wait()          # [n, width]
...     client.push("embedding", keys, gradients)
...     client.finish_step()
"""

import queue
import secrets
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from oarlock.fleet_ext.parameter_server import operations
from oarlock.fleet_ext.parameter_server.consistency import (
    Asynchronous,
    Consistency,
    StaleSynchronous,
)
from oarlock.fleet_ext.parameter_server.errors import TablesError, WorkerLost
from oarlock.fleet_ext.parameter_server.hashing import as_keys
from oarlock.fleet_ext.parameter_server.layout import Dense, Sparse
from oarlock.fleet_ext.parameter_server.membership import WORKERS
from oarlock.fleet_ext.parameter_server.messages import Message
from oarlock.fleet_ext.parameter_server.part import distinct, summed
from oarlock.fleet_ext.parameter_server.routes import Cut, Routes
from oarlock.fleet_ext.rendezvous import Lease, Store
from oarlock.fleet_ext.transport.wire import Tls
from oarlock.fleet_ext.transport.work import Work

T = TypeVar("T")

TIMEOUT_S = 30.0


class Client:
    """Used by any number of threads. What is asked is done in order, in a thread of the client's own.

    A push is over when all copies of its shards have it, and it is applied once, whatever fails meanwhile. Where one
    failed with `Unavailable` or `WorkerLost`, all that follow do, too: make another client.

    Args:
        store: which the servers share.
        token, job, tls: of the job, as the servers have them.
        consistency: how far workers may be apart.
        timeout: seconds for each call; it must be longer than a failover, and than other workers' steps.

    Raises:
        TimeoutError: there are no servers.
        ValueError: other workers have another consistency.
    """

    def __init__(
        self, store: Store, *, token: str, job: str = "job", consistency: Consistency = Asynchronous(),
        tls: Tls | None = None, timeout: float = TIMEOUT_S,
    ) -> None:  # fmt: skip
        if not timeout > 0:
            raise ValueError(f"timeout must be above 0 s, not {timeout}")
        self._store, self.consistency = store, consistency
        self.name = secrets.token_hex(12)
        self.routes = Routes(store, job, token, tls, timeout)
        self.layout = self.routes.layout
        self._numbers = [0] * self.layout.shards  #: of this client's last change of each shard
        self._error: Exception | None = None
        self._refused: Exception | None = None
        self._noted: Exception | None = None
        self._asked: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._lease: Lease | None = None
        self._thread = threading.Thread(target=self._work, name="tables client", daemon=True)
        self._thread.start()
        #: Steps that this worker has ended: one that takes another's place begins where that one was.
        self.step = 0
        if not isinstance(consistency, Asynchronous):
            try:
                self.step = self._join(consistency)
            except BaseException:
                self._stop(leave=False)
                raise

    # Tables.

    def pull(self, table: str, keys: Any) -> Work[np.ndarray]:
        """Rows of a sparse table; those that nobody has pushed are as its `initial` says.

        Args:
            keys: integers [n], which may repeat.

        Returns:
            float32 [n, width].
        """
        self._sparse(table)
        given = as_keys(keys)
        return self._ask(lambda step: self._pull(table, given, step))

    def push(self, table: str, keys: Any, gradients: Any) -> Work[None]:
        """Gradients of rows; those of one key are summed first.

        Args:
            keys: integers [n].
            gradients: float32 [n, width], finite.
        """
        return self._change_rows(operations.PUSH, table, *self._given(table, keys, gradients))

    def assign(self, table: str, keys: Any, values: Any) -> Work[None]:
        """Sets rows [n, width]; their optimiser begins anew. By one worker, before the others begin."""
        return self._change_rows(operations.ASSIGN, table, *self._given(table, keys, values))

    def pull_dense(self, table: str) -> Work[np.ndarray]:
        """The array, in its shape."""
        spec = self._dense(table)
        keys = np.arange(spec.blocks, dtype=np.int64)

        def run(step: int) -> np.ndarray:
            return self._pull(table, keys, step).reshape(-1)[: spec.size].reshape(spec.shape)

        return self._ask(run)

    def push_dense(self, table: str, gradient: Any) -> Work[None]:
        """The gradient of the whole array."""
        return self._change_rows(operations.PUSH, table, *self._blocks(table, gradient))

    def assign_dense(self, table: str, values: Any) -> Work[None]:
        """Sets the array; its optimiser begins anew. By one worker, before the others begin."""
        return self._change_rows(operations.ASSIGN, table, *self._blocks(table, values))

    def load(self, table: str, keys: np.ndarray, records: np.ndarray) -> Work[None]:
        """Sets rows and what their optimiser remembers, as a snapshot has them."""
        columns = self.layout.table(table).record
        if records.dtype != np.float32 or records.shape != (len(keys), columns):
            raise ValueError(
                f"records must be float32 {[len(keys), columns]}, not {records.dtype} {list(records.shape)}"
            )
        return self._change_rows(operations.LOAD, table, as_keys(keys), records)

    # Steps.

    def finish_step(self) -> Work[None]:
        """Ends a step: others wait for that, where they must, and averaged gradients are applied.

        Raises:
            what was noted.
        """
        noted, self._noted = self._noted, None
        if noted is not None:
            raise noted
        with self._lock:
            step, self.step = self.step, self.step + 1
        if isinstance(self.consistency, Asynchronous):
            return self._ask(lambda _: None)
        names = {"rank": self.consistency.rank, "step": step}
        return self._ask(lambda _: self._change_all(operations.TICK, names))

    def flush(self, timeout: float | None = None) -> None:
        """Waits for all that was asked.

        Raises:
            the first error since the last time; TimeoutError where it takes longer.
        """
        self._ask(lambda _: None).wait(timeout)
        refused, self._refused, self._noted = self._noted or self._refused, None, None
        if refused is not None:
            raise refused

    def note(self, error: Exception) -> None:
        """Keeps an error of a place that must not raise, such as a gradient's hook, for `finish_step` or `flush`."""
        self._noted = self._noted or error

    def close(self) -> None:
        """Does what was asked, and leaves the others, who go on without this worker."""
        self._stop(leave=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stop(leave=error is None)

    # In the caller's thread.

    def _ask(self, run: Callable[[int], T]) -> Work[T]:
        work: Work[T] = Work()
        step = self.step

        def act() -> None:
            if self._error is not None:
                work.fail(self._error)
                return
            try:
                work.finish(run(step))
            except (TablesError, ValueError) as error:
                if isinstance(error, TablesError):
                    self._error = error
                self._refused = self._refused or error
                work.fail(error)
            except Exception as error:
                self._error = error
                work.fail(error)

        with self._lock:
            if self._closed:
                raise ValueError("this client is closed")
            self._asked.put(act)
        return work

    def _change_rows(self, kind: str, table: str, keys: np.ndarray, rows: np.ndarray) -> Work[None]:
        names: dict[str, Any] = {"table": table}
        if kind == operations.PUSH and not isinstance(self.consistency, Asynchronous):
            names["rank"] = self.consistency.rank

        def run(step: int) -> None:
            if "rank" in names:
                names["step"] = step
            one, sums = summed(keys, rows) if kind == operations.PUSH else (keys, rows)
            cut = Cut(one, self.layout.salts[table], self.layout.shards)
            self._change(kind, names, list(cut.bounds), cut, sums[cut.order])

        return self._ask(run)

    def _given(self, table: str, keys: Any, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        """Copies, since they are used in the background."""
        spec = self._sparse(table)
        found = as_keys(keys).copy()
        array = np.array(rows, np.float32, order="C")
        if array.shape != (len(found), spec.width):
            raise ValueError(
                f"rows for table {table!r} must be [{len(found)}, {spec.width}], not {list(array.shape)}"
            )
        return found, _finite(table, array)

    def _blocks(self, table: str, given: Any) -> tuple[np.ndarray, np.ndarray]:
        spec = self._dense(table)
        array = np.asarray(given, np.float32)
        if array.shape != spec.shape:
            raise ValueError(f"table {table!r} must have shape {spec.shape}, not {array.shape}")
        rows = np.zeros((spec.blocks, spec.width), np.float32)
        rows.reshape(-1)[: spec.size] = array.reshape(-1)
        return np.arange(spec.blocks, dtype=np.int64), _finite(table, rows)

    def _sparse(self, table: str) -> Sparse:
        found = self.layout.table(table)
        if not isinstance(found, Sparse):
            raise ValueError(f"table {table!r} is dense: use pull_dense, push_dense, assign_dense")
        return found

    def _dense(self, table: str) -> Dense:
        found = self.layout.table(table)
        if not isinstance(found, Dense):
            raise ValueError(f"table {table!r} is sparse: use pull, push, assign")
        return found

    # In the client's thread.

    def _work(self) -> None:
        while (act := self._asked.get()) is not None:
            act()

    def _pull(self, table: str, keys: np.ndarray, step: int) -> np.ndarray:
        unique, places = distinct(keys)
        cut = Cut(unique, self.layout.salts[table], self.layout.shards)
        found = np.empty((len(unique), self.layout.table(table).width), np.float32)
        wait = None
        if not isinstance(self.consistency, Asynchronous):
            bound = self.consistency.bound if isinstance(self.consistency, StaleSynchronous) else 0
            wait = [step, bound]

        def build(shards: Sequence[int]) -> Message:
            parts = [[shard, self._epoch(shard), self._numbers[shard], cut.count(shard)] for shard in shards]  # fmt: skip
            names = {"op": "pull", "table": table, "client": self.name, "parts": parts, "wait": wait}  # fmt: skip
            return Message(names, [cut.of(cut.keys, shards)])

        def accept(shards: Sequence[int], answer: Message) -> dict[int, str]:
            again, arrays = {}, iter(answer.arrays)
            for shard, result in zip(shards, answer.names["results"], strict=True):
                if result[0] == "ok":
                    found[cut.order[slice(*cut.bounds[shard])]] = next(arrays)
                elif result[0] == "behind":
                    again[shard] = f"worker {', '.join(map(str, result[1]))} has not ended its step"
                else:
                    again[shard] = self._unless_over(result)
            return again

        self.routes.exchange(f"pull of {table!r}", list(cut.bounds), build, accept)
        return found[places]

    def _change(
        self, kind: str, names: dict[str, Any], shards: Sequence[int], cut: Cut | None = None,
        rows: np.ndarray | None = None,
    ) -> dict[int, Any]:  # fmt: skip
        """Changes shards once each, whatever fails; what each says."""
        values: dict[int, Any] = {}
        refused: list[str] = []
        numbers = {shard: self._numbers[shard] + 1 for shard in shards}

        def build(shards: Sequence[int]) -> Message:
            parts = [
                [shard, self._epoch(shard), numbers[shard], 0 if cut is None else cut.count(shard)]
                for shard in shards
            ]
            said = {"op": "change", "kind": kind, "client": self.name, "parts": parts, **names}
            if cut is None or rows is None:
                return Message(said)
            return Message(said, [cut.of(cut.keys, shards), cut.of(rows, shards)])

        def accept(shards: Sequence[int], answer: Message) -> dict[int, str]:
            again = {}
            for shard, result in zip(shards, answer.names["results"], strict=True):
                if result[0] == "ok":
                    values[shard] = result[1]
                    self._numbers[shard] = numbers[shard]
                elif result[0] == "refused":
                    refused.append(result[1])
                else:
                    again[shard] = self._unless_over(result)
            return again

        self.routes.exchange(kind, shards, build, accept)
        if refused:
            raise ValueError(refused[0])
        return values

    def _change_all(self, kind: str, names: dict[str, Any]) -> None:
        self._change(kind, names, range(self.layout.shards))

    @staticmethod
    def _unless_over(result: Sequence[str]) -> str:
        """Why to ask again."""
        if result[0] == "lost":
            raise WorkerLost(result[1])
        return result[1]

    def _epoch(self, shard: int) -> int:
        place = self.routes.place(shard)
        return 0 if place is None else place.epoch

    def _join(self, consistency: Any) -> int:
        """Takes the rank; the steps that it has ended."""
        self._lease = self._store.lease(consistency.lease)
        self._store.set(f"{WORKERS}{consistency.rank}", self.name.encode(), lease=self._lease)
        self._lease.renew()
        averaged = not isinstance(consistency, StaleSynchronous)
        names = {"rank": consistency.rank, "workers": consistency.workers, "averaged": averaged}
        shards = range(self.layout.shards)
        clocks = self._ask(lambda _: self._change(operations.JOIN, names, shards)).wait()
        return min(clocks.values())

    def _stop(self, *, leave: bool) -> None:
        with self._lock:
            if self._closed:
                return
        if leave and self._lease is not None and not isinstance(self.consistency, Asynchronous):
            names = {"rank": self.consistency.rank}
            left = self._ask(lambda _: self._change_all(operations.LEAVE, names))
            left.over_within(None)
        with self._lock:
            self._closed = True
            self._asked.put(None)
        self._thread.join()
        self.routes.close()
        if self._lease is not None:
            self._lease.release()


def _finite(table: str, rows: np.ndarray) -> np.ndarray:
    if not np.isfinite(rows).all():
        raise ValueError(
            f"rows for table {table!r} must be finite: leave out steps with NaN or infinity"
        )
    return rows
