"""Strategies over real processes: the same numbers, crashes with their reasons, nothing left over."""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from oarlock.core_opt.asynchronous import (
    Asynchronous,
    Cluster,
    DelayCompensated,
    Interrupted,
    Processes,
    Rennala,
    Ringmaster,
    Synchronous,
    Until,
    WorkerFailed,
    delays,
    problems,
)

QUICK = delays.Fixed(seconds=(0.002, 0.006))


def chain(noise, worker):
    return problems.Chain(20, noise=noise)


build = functools.partial(chain, 0.1)


def simulated(strategy, times=QUICK, **until):
    return Cluster(times).run(strategy, build(0), np.zeros(20), until=Until(**until))


def test_synchronous_and_serial_runs_are_those_of_the_simulation_bit_for_bit():
    with Processes(build, delays=QUICK) as processes:
        trace = processes.run(Synchronous(0.3), np.zeros(20), until=Until(updates=30))
    wanted = simulated(Synchronous(0.3), updates=30)
    np.testing.assert_array_equal(trace.parameters, wanted.parameters)
    assert trace.delays == wanted.delays == {0: 60} and trace.seconds_used >= 30 * 0.006
    alone = delays.Fixed(seconds=(0.0,))
    with Processes(build, delays=alone) as processes:
        trace = processes.run(DelayCompensated(0.2), np.zeros(20), until=Until(updates=30))
    wanted = simulated(DelayCompensated(0.2), alone, updates=30)
    np.testing.assert_array_equal(trace.parameters, wanted.parameters)


@pytest.mark.parametrize(
    "strategy",
    [
        Asynchronous(0.1),
        Ringmaster(0.1, threshold=2),
        Ringmaster(0.1, threshold=1, stops=False),
        Rennala(0.3, gradients=3),
        Synchronous(0.3, gradients=1),
    ],
    ids=lambda one: f"{type(one).__name__}-{one.limit}-{one.stops}",
)
def test_every_strategy_counts_and_descends(strategy):
    problem = build(0)
    with Processes(build, delays=QUICK) as processes:
        trace = processes.run(
            strategy, np.zeros(20), until=Until(updates=150), observe=problem.value, every=50
        )
    assert trace.updates == 150 and len(trace.values) == 4
    assert trace.values[-1] < 0.7 * problem.minimum
    assert sum(map(len, trace.seconds)) == trace.applied + trace.discarded
    assert trace.applied == sum(trace.delays.values())
    for worker, seconds in enumerate(QUICK.seconds):
        assert min(trace.seconds[worker], default=1.0) >= seconds
    if strategy.limit is not None:
        assert max(trace.delays) < strategy.limit


def test_a_run_ends_in_time_and_measures_delays():
    with Processes(build, workers=2) as processes:
        trace = processes.run(Asynchronous(1e-3), np.zeros(20), until=Until(seconds=1.0))
    assert trace.seconds_used == 1.0 and trace.updates > 0
    assert all(0 < sum(seconds) <= 1.0 for seconds in trace.seconds)
    measured = delays.Measured(trace=tuple(map(tuple, trace.seconds)))
    again = simulated(Asynchronous(1e-3), measured, updates=5000)
    rate = sum(1 / measured.mean(worker) for worker in range(2))
    assert 0.5 < again.seconds_used * rate / 5000 < 2  # it draws: a rare slow one may come twice


def test_processes_serve_one_run_after_another():
    with Processes(build, delays=QUICK) as processes:
        first = processes.run(Synchronous(0.3), np.zeros(20), until=Until(updates=5))
        again = processes.run(Synchronous(0.3), np.zeros(20), until=Until(updates=5))
    np.testing.assert_array_equal(first.parameters, again.parameters)
    assert not multiprocessing.active_children()


# What goes wrong --------------------------------------------------------------------------------


class Wrong:
    def __init__(self, how, worker):
        self.how, self.worker = how, worker
        if how == "build" and worker == 1:
            raise RuntimeError("no data for worker 1")

    def gradient(self, parameters, worker, rng):
        if worker == 1:
            if self.how == "raise":
                raise ZeroDivisionError("gradient of worker 1")
            if self.how == "die":
                os._exit(7)
            if self.how == "shape":
                return parameters[:-1]
            if self.how == "dtype":
                return parameters.astype("float64")
        return parameters


@pytest.mark.parametrize(
    "how, message",
    [
        ("build", "worker 1 failed:(.|\n)*RuntimeError: no data for worker 1"),
        ("raise", "worker 1 failed:(.|\n)*ZeroDivisionError: gradient of worker 1"),
        ("shape", "worker 1 failed:(.|\n)*must have the shape of the parameters"),
        ("dtype", "worker 1 failed:(.|\n)*float64.*float32.*astype"),
        ("die", "worker 1 died with exit code 7"),
    ],
)
def test_a_failing_worker_is_reported_and_the_rest_ended(how, message):
    processes = Processes(functools.partial(Wrong, how), workers=3)
    with pytest.raises(WorkerFailed, match=message):
        processes.run(Asynchronous(0.1), np.ones(3, "float32"), until=Until(seconds=30.0))
    assert not multiprocessing.active_children()


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="build must be a function of a module"):
        Processes(lambda worker: build(worker), workers=2)
    with pytest.raises(ValueError, match="workers must be given"):
        Processes(build)
    with pytest.raises(ValueError, match="workers is 3"):
        Processes(build, workers=3, delays=QUICK)
    with pytest.raises(ValueError, match="threads"):
        Processes(build, workers=2, threads=0)
    with pytest.raises(ValueError, match="gradients must be at most"):
        Processes(build, workers=2).run(
            Synchronous(0.1, gradients=3), np.zeros(20), until=Until(updates=1)
        )


SCRIPT = """
import functools, json, multiprocessing, sys
sys.path.insert(0, {folder!r})
import numpy as np
from oarlock.core_opt.asynchronous import *
import test_parallel_processes as module
def observe(x):
    pids = [child.pid for child in multiprocessing.active_children()]
    print(json.dumps(pids), flush=True)
    return 0.0
if __name__ == "__main__":
    processes = Processes(module.build, delays=delays.Fixed(seconds=(0.01, 30.0)))
    try:
        processes.run(
            Asynchronous(0.1), np.zeros(20), until=Until(seconds=60.0), observe=observe, every=5
        )
    except Interrupted as stopped:
        print("kept", stopped.trace.updates, np.isfinite(stopped.trace.parameters).all(), flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_the_server(how, tmp_path):
    """Ctrl-C keeps the record; even a killed server leaves no worker behind."""
    script = tmp_path / "server.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parent)))
    server = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    lines = [server.stdout.readline() for _ in range(3)]
    workers = [int(one) for one in lines[-1].strip("[]\n").split(",")]
    assert len(workers) == 2
    if how == signal.SIGINT:
        os.killpg(server.pid, how)  # as a terminal does: to workers as well
    else:
        server.kill()
    rest, _ = server.communicate(timeout=30)
    if how == signal.SIGINT:
        word, updates, finite = rest.splitlines()[-1].split()
        assert word == "kept" and int(updates) >= 10 and finite == "True"
        assert server.returncode == 0
    deadline = time.monotonic() + 20
    while any(map(running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, workers))


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_interrupted_is_a_keyboard_interrupt():
    assert issubclass(Interrupted, KeyboardInterrupt)
