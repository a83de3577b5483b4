"""The threading policy: one team in the process, with Paddle and without, after fork, nested."""

import os
import subprocess
import sys

import pytest

HEAD = """
import ctypes, os, sys, threading, time
import numpy as np
paddle = None
if sys.argv[1] == "libiomp5":
    import paddle
    paddle.base.core.set_num_threads(2)
from oarlock import native
from oarlock.native import _library, optim

library = _library.load()
arrays = [np.random.default_rng(i).standard_normal(200_000, dtype=np.float32) for i in range(3)]
WANTED = optim.squared_norm(arrays, threads=1)

def norm(threads=2):
    return optim.squared_norm(arrays, threads=threads)

def tasks():
    return len(os.listdir("/proc/self/task"))

BODY = ctypes.CFUNCTYPE(None, ctypes.c_int64)

def parallel_for(count, threads, body):
    library.call("oarlock_parallel_for", ctypes.c_int64(count), threads, BODY(body))
"""
RUNTIMES = ["pool", "libiomp5"]
each_runtime = pytest.mark.parametrize("runtime", RUNTIMES)


def run(runtime: str, code: str) -> list[str]:
    """Words that ``code`` prints in a fresh Python, without or with Paddle."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "KMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code, runtime],
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


@each_runtime
def test_info_tells_the_runtime(runtime):
    assert run(runtime, "print(native.info().thread_runtime)") == [runtime]


def test_paddle_imported_later_is_found():
    code = """
norm(); print(native.info().thread_runtime, library.functions.oarlock_pool_size())
import paddle
norm(); print(native.info().thread_runtime, library.functions.oarlock_pool_size())
"""
    assert run("pool", code) == ["pool", "1", "libiomp5", "1"]


def test_the_pool_has_one_thread_less_than_asked_for():
    code = """
before = tasks()
for threads in (1, 2, 3, 3, 2):
    norm(threads)
    print(tasks() - before)
"""
    assert run("pool", code) == ["0", "1", "2", "2", "2"]


def test_kernels_and_paddle_share_one_team():
    code = """
x = paddle.ones([512, 512])
def step():
    paddle.matmul(x, x).exp().sum().item()
for _ in range(3):
    step()
before = tasks()
for _ in range(20):
    step()
    assert norm() == WANTED
print(tasks() - before, library.functions.oarlock_pool_size())
"""
    assert run("libiomp5", code) == ["0", "0"]


@each_runtime
def test_no_more_run_at_once_than_asked_for(runtime):
    code = """
for threads in (1, 2, 3):
    lock, now, most, ran = threading.Lock(), 0, 0, []
    def body(task):
        global now, most
        with lock:
            now += 1
            most = max(most, now)
            ran.append(task)
        time.sleep(0.005)
        with lock:
            now -= 1
    parallel_for(20, threads, body)
    print(most <= threads, threads == 1 or most > 1, sorted(ran) == list(range(20)))
"""
    assert run(runtime, code) == ["True"] * 9


@each_runtime
def test_works_after_fork(runtime):
    code = """
assert norm() == WANTED
for _ in range(3):
    child = os.fork()
    if child == 0:
        good = norm() == WANTED and norm(3) == WANTED
        if runtime_is_pool := sys.argv[1] == "pool":
            good = good and library.functions.oarlock_pool_size() == 2
        os._exit(0 if good else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert norm() == WANTED
"""
    assert run(runtime, code) == ["0"] * 3


@each_runtime
def test_fork_while_another_thread_is_in_a_kernel(runtime):
    code = """
stop = threading.Event()
def busy():
    while not stop.is_set():
        norm()
thread = threading.Thread(target=busy)
thread.start()
for _ in range(5):
    time.sleep(0.01)
    child = os.fork()
    if child == 0:
        os._exit(0 if norm(1) == WANTED else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
thread.join()
"""
    assert run(runtime, code) == ["0"] * 5


@each_runtime
def test_several_python_threads_at_once(runtime):
    code = """
norm(3)
before, most, wrong = tasks(), 0, []
barrier = threading.Barrier(4)
def work():
    barrier.wait()
    for _ in range(50):
        if norm(3) != WANTED:
            wrong.append(1)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    most = max(most, tasks())
    time.sleep(0.002)
print(len(wrong), most - before)
"""
    wrong, more = map(int, run(runtime, code))
    assert wrong == 0
    if runtime == "pool":
        assert more <= 4, "the four callers, and no worker more"
    else:  # OpenMP gives each calling thread workers of its own, as it does for Paddle's operators
        assert more <= 4 * 3


@each_runtime
def test_calls_from_inside_a_region_run_on_their_caller(runtime):
    code = """
norm(3)
before, found = tasks(), []
parallel_for(8, 3, lambda task: found.append(norm(3)))
print(set(found) == {WANTED}, len(found), tasks() - before)
"""
    assert run(runtime, code) == ["True", "8", "0"]


def test_the_pool_sleeps_between_regions():
    code = """
norm(); norm()
start = time.process_time()
time.sleep(0.5)
print(time.process_time() - start < 0.1)
"""
    assert run("pool", code) == ["True"]
