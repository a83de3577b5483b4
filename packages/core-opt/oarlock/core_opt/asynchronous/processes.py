"""The same strategies over real processes: one worker each, gradients through shared memory.

Server and worker own the memory of a worker in turns. The server writes parameters and says "go";
the worker computes, writes its gradient and says "gradient", or is told to "stop" while it waits
out an emulated delay and says "stopped". Neither touches the memory out of turn.
"""

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import connection
from typing import Any

import numpy as np

from .. import _checks
from .delays import Delays
from .server import Oracle, Server, Trace, Until, check_gradient, check_workers, streams
from .strategies import Strategy, Vector

#: Seconds that a worker has to start and build its oracle, and to end when told so.
START_S, END_S = 120.0, 5.0


class WorkerFailed(RuntimeError):
    """A worker raised or died; the message has its traceback or exit code."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a run; ``trace`` is the record until then, with usable parameters."""

    def __init__(self, trace: Trace):
        super().__init__(f"interrupted after {trace.updates} updates")
        self.trace = trace


class Processes:
    """Worker processes around a server in this one; a context manager that ends them.

    Each worker is spawned, has one thread, and builds its own oracle, so that a library that the
    gradients need is imported there only. With ``delays`` a worker waits after each gradient until
    the time drawn for it has passed: speeds are emulated, gradients and clock are real. Workers draw
    the same numbers as those of a `Cluster` with the same seed.

    Args:
        build: makes the oracle in the worker: a function of a module, or `functools.partial` of
            one, called with the worker's number.
        workers: how many; None if ``delays`` say so.
        delays: seconds that a gradient takes at least; None for as fast as it goes.
        seed: of delays and gradients, an integer >= 0.
        threads: of each worker's numerical libraries.

    Raises:
        ValueError: wrong arguments, or a ``build`` that cannot be sent to a process.
    """

    def __init__(
        self,
        build: Callable[[int], Oracle],
        *,
        workers: int | None = None,
        delays: Delays | None = None,
        seed: int = 0,
        threads: int = 1,
    ):
        if delays is None and workers is None:
            raise ValueError("workers must be given where there are no delays.")
        self.workers = check_workers(workers, delays)
        self.delays = delays
        self.seed = _checks.whole("seed", seed, 0)
        self.threads = _checks.whole("threads", threads, 1)
        try:
            self._job = pickle.dumps(build)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                "build must be a function of a module, or functools.partial of one, so that it can "
                f"be sent to a process; got {_checks.shown(build)}."
            ) from error
        self._members: list[_Member] = []

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers; ask first, kill those that do not listen."""
        for member in self._members:
            with contextlib.suppress(OSError):
                member.pipe.send("end")
        deadline = time.monotonic() + END_S
        for member in self._members:
            member.process.join(max(0.0, deadline - time.monotonic()))
            if member.process.is_alive():
                member.process.kill()
                member.process.join()
            member.pipe.close()
            member.process.close()
        self._members = []

    def run(
        self,
        strategy: Strategy,
        parameters: Vector,
        *,
        until: Until,
        observe: Callable[[Vector], float] | None = None,
        every: int = 1,
    ) -> Trace:
        """Run a strategy, as `Cluster.run` does, on the real clock.

        The clock starts when all workers are ready. ``observe`` runs on the server while gradients
        wait, so it should be short, or rare by ``every``.

        Raises:
            WorkerFailed: a worker raised or died.
            Interrupted: Ctrl-C; it holds the record until then.
            ValueError: arguments that do not fit each other.
        """
        server = Server(strategy, parameters, self.workers, until, observe, every)
        self.close()  # workers of an earlier run have drawn from their streams
        try:
            self._start(server.parameters)
            return self._serve(server, until)
        except KeyboardInterrupt as error:
            if isinstance(error, Interrupted):
                raise
            raise Interrupted(server.finish(0.0)) from None
        finally:
            self.close()

    def _start(self, parameters: Vector) -> None:
        context = multiprocessing.get_context("spawn")
        job = (self._job, self.delays, self.seed, self.workers, str(parameters.dtype))
        with _environment(self.threads):
            for worker in range(self.workers):
                memory = context.RawArray(ctypes.c_byte, 2 * parameters.nbytes)
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work, args=(worker, theirs, memory, *job), daemon=True
                )
                process.start()
                theirs.close()
                self._members.append(_Member(worker, process, ours, memory, parameters.dtype))
        deadline = time.monotonic() + START_S
        for member in self._members:
            if not member.pipe.poll(max(0.0, deadline - time.monotonic())):
                raise WorkerFailed(f"worker {member.worker} was not ready after {START_S:g} s.")
            member.receive()

    def _serve(self, server: Server, until: Until) -> Trace:
        strategy, began = server.strategy, time.perf_counter()
        by_pipe: dict[Any, _Member] = {member.pipe: member for member in self._members}
        idle: list[_Member] = []
        for member in self._members:
            member.begin(server)
        try:
            while not server.done:
                left = None
                if until.seconds is not None:
                    left = max(0.0, until.seconds - (time.perf_counter() - began))
                ready = connection.wait(list(by_pipe), left)
                now = time.perf_counter() - began
                if until.seconds is not None and now >= until.seconds:
                    break
                for pipe in ready:
                    member = by_pipe[pipe]
                    word, seconds = member.receive()
                    if word == "stopped":
                        server.trace.stopped += 1
                        member.begin(server)
                        continue
                    server.trace.seconds[member.worker].append(seconds)
                    changed = server.take(
                        member.worker, member.version, member.then, member.gradient, now
                    )
                    if server.done:
                        break
                    if strategy.waits and not changed and member.version == server.version:
                        member.busy = False
                        idle.append(member)
                    else:
                        member.begin(server)
                    if changed:
                        while idle:
                            idle.pop(0).begin(server)
                        if strategy.stops and strategy.limit is not None:
                            for other in self._members:
                                if other.version <= server.version - strategy.limit:
                                    other.stop()
        except KeyboardInterrupt:
            raise Interrupted(server.finish(time.perf_counter() - began)) from None
        now = time.perf_counter() - began
        return server.finish(until.seconds if until.seconds and now > until.seconds else now)


class _Member:
    """The server's end of one worker."""

    def __init__(self, worker: int, process, pipe, memory, dtype: np.dtype):
        self.worker, self.process, self.pipe = worker, process, pipe
        self._ours, self._theirs = np.split(np.frombuffer(memory, dtype), 2)
        self.version, self.then = 0, self._ours
        self.busy = self._stopping = False

    def begin(self, server: Server) -> None:
        """Let it compute a gradient at the present parameters."""
        self.version, self.then = server.version, server.parameters
        self.busy, self._stopping = True, False
        self._ours[:] = server.parameters
        self._send("go")

    def stop(self) -> None:
        """Ask it to stop; it answers, or its gradient is under way already."""
        if self.busy and not self._stopping:
            self._stopping = True
            self._send("stop")

    def gradient(self) -> Vector:
        """A copy of the gradient that it has delivered."""
        return self._theirs.copy()

    def _send(self, word: str) -> None:
        try:
            self.pipe.send(word)
        except OSError:
            self.receive()  # what it said last tells why
            raise self._died() from None

    def receive(self) -> tuple[str, float]:
        """What it says: ("ready" | "gradient" | "stopped", seconds)."""
        try:
            word, value = self.pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if word == "failed":
            raise WorkerFailed(f"worker {self.worker} failed:\n{value}")
        return word, value

    def _died(self) -> WorkerFailed:
        self.process.join(END_S)
        return WorkerFailed(
            f"worker {self.worker} died with exit code {self.process.exitcode} and said nothing."
        )


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Bounds the threads of children started inside; libraries read this when they are imported."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(worker: int, pipe, memory, job: bytes, delays, seed: int, workers: int, dtype: str):
    """The process of one worker; ends when told so, or when the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's business
    try:
        oracle = pickle.loads(job)(worker)
        parameters, out = np.split(np.frombuffer(memory, dtype), 2)
        delay_rng, gradient_rng = streams(seed, workers)[worker]
        pipe.send(("ready", 0.0))
        while (word := pipe.recv()) != "end":
            if word == "stop":  # the gradient was under way already
                continue
            began = time.perf_counter()
            delay = delays.sample(worker, delay_rng) if delays is not None else 0.0
            now = parameters.copy()
            gradient = np.asarray(oracle.gradient(now, worker, gradient_rng))
            check_gradient(gradient, now, worker)
            left = delay - (time.perf_counter() - began)
            if pipe.poll(max(0.0, left)):
                if pipe.recv() == "end":
                    return
                pipe.send(("stopped", 0.0))
                continue
            out[:] = gradient
            pipe.send(("gradient", time.perf_counter() - began))
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the server is gone
        pass
    except Exception:
        with contextlib.suppress(OSError):
            pipe.send(("failed", traceback.format_exc()))
