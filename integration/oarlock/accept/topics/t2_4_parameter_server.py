"""Criterion 2.4.4, parameter server: training and inference that go on when servers are killed, stopped, added and emptied."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from oarlock.accept.experiment import Evidence, Run, experiment

DATA = "tabular/uci_ctr"
WORKERS = 2
SAME = 1e-5  #: relative, between losses of the same step, also against another order of sums
EQUAL_AUC = 0.998
STANDS_S = 5.0  #: the lease is 2 s
TOKEN = "token-of-an-experiment"
LIMIT_S = 240.0

#: What happens to servers, and at which share of the steps. A fault waits until each shard has two copies again.
Script = Sequence[tuple[float, str, str]]
FAULTS: Script = (
    (0.15, "kill", "a"),
    (0.15, "start", "d"),
    (0.4, "stop", "b"),
    (0.7, "wake", "b"),
)
MORE: Script = (
    (0.08, "kill", "a"),
    (0.08, "start", "d"),
    (0.2, "stop", "b"),
    (0.32, "wake", "b"),
    (0.4, "kill", "c"),
    (0.4, "start", "e"),
    (0.55, "kill", "d"),
    (0.7, "stop", "e"),
    (0.85, "wake", "e"),
)
RESCALING: Script = ((0.1, "start", "c"), (0.1, "start", "d"), (0.5, "drain", "a"))


@dataclass
class Course:
    """One training over servers, and what was seen beside it."""

    workers: list[dict[str, Any]] = field(default_factory=list)
    reads: int = 0
    failed: list[str] = field(default_factory=list)
    slowest: float = 0.0
    pushed: int = 0
    wrong: int = 0
    happened: list[tuple[float, str]] = field(default_factory=list)

    @property
    def losses(self) -> list[list[float]]:
        """By step, of each worker."""
        return [list(one) for one in zip(*(worker["losses"] for worker in self.workers), strict=True)]  # fmt: skip

    @property
    def stands(self) -> float:
        """Longest time between two steps, seconds."""
        times = self.workers[0]["times"]
        return max(later - sooner for sooner, later in itertools.pairwise(times))


class Place:
    """Processes of a course: servers by `oarlock.fleet_ext.cli.serve_tables`, workers by `oarlock.accept.fleet.ctr`."""

    def __init__(self, order: Any, folder: Path, servers: Sequence[str], stack: ExitStack) -> None:
        from oarlock.accept.fleet import ctr
        from oarlock.fleet_ext.rendezvous import StoreServer, TcpStore

        server = stack.enter_context(StoreServer(job=ctr.JOB, token=TOKEN))
        self.port, self.folder = server.address[1], folder
        self.order = replace(order, store=self.port, token=TOKEN, out=str(folder))
        self._stack = stack
        self._tables = folder / "tables.yaml"
        self._tables.write_bytes(self.order.layout().pack())  # JSON is YAML
        self.store = stack.enter_context(TcpStore("127.0.0.1", self.port, job=ctr.JOB, token=TOKEN))
        self.servers: dict[str, subprocess.Popen[bytes]] = {}
        for name in servers:
            self.start(name)
        self.until(self.settled, "servers")

    def start(self, name: str) -> None:
        command = ["oarlock.fleet_ext.cli.serve_tables", "--store", f"127.0.0.1:{self.port}", "--tables",
                   str(self._tables), "--name", name, "--job", "ctr", "--folder", str(self.folder / name)]  # fmt: skip
        self.servers[name] = self._run(command, name)

    def workers(self) -> list[subprocess.Popen[bytes]]:
        command = ["oarlock.accept.fleet.ctr", self.order.pack()]
        return [self._run([*command, str(rank)], f"worker-{rank}") for rank in range(WORKERS)]

    def _run(self, command: Sequence[str], name: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {"OARLOCK_STORE_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen([sys.executable, "-m", *command], stdout=log, stderr=log, env=environment)  # fmt: skip
        self._stack.callback(_end, process)
        return process

    def settled(self) -> bool:
        """Whether each shard has two copies, on servers that run."""
        from oarlock.fleet_ext.parameter_server.membership import View

        view = View.read(self.store)
        there = {name for name in view.servers}
        running = sum(one.poll() is None for one in self.servers.values())
        return view.map is not None and min(2, running) <= len(there) and all(
            len(one.copies) == 2 and one.joining is None and set(one.copies) <= there for one in view.map.places
        )  # fmt: skip

    def until(self, holds: Callable[[], bool], what: str) -> None:
        limit = time.monotonic() + LIMIT_S
        while not holds():
            if time.monotonic() > limit:
                logs = "\n".join(path.read_text(errors="replace")[-500:] for path in self.folder.glob("*.log"))  # fmt: skip
                raise RuntimeError(f"{what}: not within {LIMIT_S:g} s\n{logs}")
            time.sleep(0.02)

    def suffer(self, what: str, name: str) -> None:
        process = self.servers.get(name)
        if what == "start" or process is None:
            self.start(name)
            return
        numbers = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "wake": signal.SIGCONT, "drain": signal.SIGTERM}  # fmt: skip
        process.send_signal(numbers[what])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def course(order: Any, servers: Sequence[str], script: Script, told: Callable[[str], None] = lambda text: None) -> Course:  # fmt: skip
    """Trains by two workers; where something happens to servers, a reader reads and a third client counts its pushes."""
    found = Course()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        place = Place(order, folder, servers, stack)
        over = threading.Event()
        threads = [threading.Thread(target=_reading, args=(place, over, found)),
                   threading.Thread(target=_counting, args=(place, over, found))]  # fmt: skip
        threads = threads if script else []
        for one in threads:
            one.start()
        try:
            processes = place.workers()
            for share, what, name in script:
                step = int(share * order.steps)
                place.until(lambda step=step: _step(folder, processes) >= step, f"step {step}")  # type: ignore[misc]
                if what in ("kill", "stop", "drain"):
                    place.until(place.settled, "copies")
                place.suffer(what, name)
                at = _step(folder, processes)
                found.happened.append((time.time(), f"{what} {name} at step {at}"))
                told(found.happened[-1][1])
                if at >= order.steps - 1:
                    raise RuntimeError(f"{what} {name} came after the training: make it longer")
            place.until(lambda: all(one.poll() is not None for one in processes), "workers end")
        finally:
            over.set()
            for one in threads:
                one.join()
        _check(processes, folder)
        found.workers = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(WORKERS)]  # fmt: skip
    return found


def _step(folder: Path, processes: Sequence[subprocess.Popen[bytes]]) -> int:
    _check([one for one in processes if one.poll() not in (None, 0)], folder)
    path = folder / "0.steps"
    lines = path.read_text().splitlines() if path.exists() else []
    return int(lines[-1]) if lines else -1


def _check(processes: Sequence[subprocess.Popen[bytes]], folder: Path) -> None:
    if any(one.returncode for one in processes):
        said = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(folder.glob("worker-*.log")))  # fmt: skip
        raise RuntimeError(f"a worker failed:\n{said}")


def _reading(place: Place, over: threading.Event, found: Course) -> None:
    """Asks for rows all the time, as inference does."""
    import numpy as np

    from oarlock.accept.fleet import ctr
    from oarlock.fleet_ext.parameter_server import Reader

    keys = ctr.read(Path(place.order.data), place.order.seed)[1].deep
    rng = np.random.default_rng(0)
    with Reader(place.store, token=TOKEN, job=ctr.JOB) as reader:
        while not over.wait(0.002):
            begin = time.monotonic()
            try:
                reader.read("deep", keys[rng.integers(0, len(keys), 8)])
            except Exception as error:  # what a service would have to tell its callers
                found.failed.append(f"{type(error).__name__}: {error}")
            found.reads += 1
            found.slowest = max(found.slowest, time.monotonic() - begin)


def _counting(place: Place, over: threading.Event, found: Course) -> None:
    """Pushes ones, and compares with what the table has counted."""
    import numpy as np

    from oarlock.accept.fleet import ctr
    from oarlock.fleet_ext.parameter_server import Client

    keys, rng = np.arange(300), np.random.default_rng(1)
    wanted = np.zeros(len(keys))
    with Client(place.store, token=TOKEN, job=ctr.JOB, timeout=90.0) as client:
        while not over.wait(0.005):
            chosen = rng.integers(0, len(keys), 20)
            client.push("counts", chosen, np.ones((20, 1))).wait()
            np.add.at(wanted, chosen, 1)
            found.pushed += 20
        counted = -client.pull("counts", keys).wait()[:, 0]
    found.wrong = int(np.abs(np.round(counted) - wanted).sum())


def _apart(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """Largest relative difference of losses of the same step and worker."""
    return max(
        abs(a - b) / max(abs(a), abs(b)) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )  # fmt: skip


def _alone(order: Any) -> dict[str, Any]:
    from oarlock.accept.fleet import ctr

    return ctr.alone(order)


@dataclass(frozen=True)
class Sizes:
    """Of a tier: `judged` says whether times are."""

    seeds: Sequence[int]
    steps: int
    judged: bool


def _sizes(run: Run) -> Sizes:
    if run.tier == "quick":
        return Sizes([run.seed], 80, judged=False)
    return Sizes([run.seed + number for number in range(3)], 1200, judged=True)


def _order(seed: int, steps: int, **more: Any) -> Any:
    from oarlock.accept import data
    from oarlock.accept.fleet.ctr import Order

    path = str(data.path(DATA) / "adult.csv.gz")
    return Order(data=path, out="", seed=seed, steps=steps, workers=WORKERS, **more)


@experiment(
    "2.4.4",
    name="parameter-server-faults",
    tiers=("quick", "full"),
    title="Wide & deep over three servers of tables: killed and stopped in the middle, beside undisturbed ones and one process",
    minutes=12,
    data=(DATA,),
)
def faults(run: Run) -> Iterator[Evidence]:
    """Servers and workers are processes on this machine; hot rows are a third of all, the others on the disk."""
    sizes = _sizes(run)
    script = FAULTS if run.tier == "quick" else MORE
    yield from _compared(run, "faults", ("a", "b", "c"), script, sizes)


@experiment(
    "2.4.4",
    name="parameter-server-rescaling",
    tiers=("full",),
    title="Wide & deep over two, then four, then three servers of tables, beside one process",
    minutes=8,
    data=(DATA,),
)
def rescaling(run: Run) -> Iterator[Evidence]:
    """Servers are added and emptied while workers train."""
    yield from _compared(run, "rescaling", ("a", "b"), RESCALING, _sizes(run))


def _compared(run: Run, name: str, servers: Sequence[str], script: Script, sizes: Sizes) -> Iterator[Evidence]:  # fmt: skip
    courses: list[tuple[Course, Course, dict[str, Any]]] = []
    for number, seed in enumerate(sizes.seeds):
        run.progress(number, len(sizes.seeds), f"seed {seed}")
        order = _order(seed, sizes.steps, hot_rows=200)
        stock = _alone(order)
        undisturbed = course(order, servers, ())
        courses.append((undisturbed, course(order, servers, script, run.log), stock))
    calm, disturbed, stock = zip(*courses, strict=True)
    events = "; ".join(text for _, text in disturbed[0].happened)
    shared: dict[str, Any] = {"n": len(courses), "seeds": sizes.seeds, "level": "measured",
                              "notes": f"{WORKERS} workers, synchronous, {sizes.steps} steps; first seed: {events}"}  # fmt: skip
    allowed: dict[str, Any] = {"unit": "1", "direction": "lower", "baseline_name": "allowed", "target": 1.0}  # fmt: skip
    yield Evidence(
        name=f"parameter-server-{name}-losses",
        metric="losses of the same step, disturbed against undisturbed: largest difference, relative",
        baseline=SAME,
        ours=max(1e-16, *(_apart(a.losses, b.losses) for a, b in zip(calm, disturbed, strict=True))),
        **allowed,
        **shared,
    )  # fmt: skip
    yield Evidence(
        name=f"parameter-server-{name}-one-process",
        metric="losses of the same step, disturbed against one process of Paddle without servers: largest difference, relative",
        baseline=SAME,
        ours=max(1e-16, *(_apart(a["losses"], b.losses) for a, b in zip(stock, disturbed, strict=True))),
        **allowed,
        **shared,
    )  # fmt: skip
    yield Evidence(
        name=f"parameter-server-{name}-auc",
        metric="area under the curve on held-out rows, mean of seeds",
        unit="1",
        direction="higher",
        baseline=mean(one["auc"] for one in stock),
        baseline_name="one process of Paddle without servers",
        ours=mean(one.workers[0]["auc"] for one in disturbed),
        target=EQUAL_AUC,
        **shared,
    )
    for what, total, bad, words in (
        ("updates", sum(one.pushed for one in disturbed), sum(one.wrong for one in disturbed),
         "acknowledged gradients that are in the table exactly once"),
        ("reads", sum(one.reads for one in disturbed), sum(len(one.failed) for one in disturbed),
         "reads of the inference path that were answered"),
    ):  # fmt: skip
        said = next((one.failed[0] for one in disturbed if one.failed), "")
        yield Evidence(
            name=f"parameter-server-{name}-{what}",
            metric=f"{words}: {total - bad} of {total}",
            unit="share",
            direction="higher",
            baseline=1.0,
            baseline_name="all",
            ours=max(1e-16, 1 - bad / total) if total else None,
            target=1.0,
            **shared | {"notes": f"{shared['notes']}. {said if what == 'reads' else ''}".strip()},
        )
    for what, value, words in (
        ("stands-still", max(one.stands for one in disturbed), "longest time without a step"),
        ("slowest-read", max(one.slowest for one in disturbed), "slowest read of the inference path"),
    ):  # fmt: skip
        yield Evidence(
            name=f"parameter-server-{name}-{what}",
            metric=words,
            unit="s",
            direction="lower",
            baseline=STANDS_S if what == "stands-still" else 1.0,
            baseline_name="allowed",
            ours=value,
            target=1.0,
            judged=sizes.judged,
            **shared,
        )


@experiment(
    "2.4.4",
    name="parameter-server-modes",
    tiers=("full",),
    title="Wide & deep by asynchronous and stale workers, servers killed and stopped in the middle, beside one process",
    minutes=10,
    data=(DATA,),
)
def modes(run: Run) -> Iterator[Evidence]:
    """Quality, where workers do not wait for each other."""
    sizes = _sizes(run)
    stock = [_alone(_order(seed, sizes.steps)) for seed in sizes.seeds]
    for mode in ("asynchronous", "stale"):
        found = []
        for number, seed in enumerate(sizes.seeds):
            run.progress(number, len(sizes.seeds), f"{mode}, seed {seed}")
            found.append(course(_order(seed, sizes.steps, mode=mode), ("a", "b", "c"), FAULTS, run.log))  # fmt: skip
        yield Evidence(
            name=f"parameter-server-{mode}-auc",
            metric=f"area under the curve on held-out rows, {mode} workers, with faults, mean of seeds",
            unit="1",
            direction="higher",
            baseline=mean(one["auc"] for one in stock),
            baseline_name="one process of Paddle without servers",
            ours=mean(one.workers[0]["auc"] for one in found),
            n=len(found),
            seeds=sizes.seeds,
            target=EQUAL_AUC,
            notes=f"{WORKERS} workers, {sizes.steps} steps of each; AUC by seed: "
            + ", ".join(f"{one.workers[0]['auc']:.4f}" for one in found)
            + "; one process: " + ", ".join(f"{one['auc']:.4f}" for one in stock),
        )  # fmt: skip
