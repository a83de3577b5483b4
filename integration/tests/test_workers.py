"""Workers serve functions, survive exceptions and printing, and say how they died."""

import os
import sys
import venv

import psutil
import pytest

from oarlock.accept.workers import Worker, WorkerDied, WorkerFailed

MODULE = """
import os, sys
state = {}

def put(name, value):
    state[name] = value
    return sorted(state)

def environment(name):
    return os.environ.get(name)

def noisy():
    print("to stdout", flush=True)
    os.write(1, b"to file descriptor 1\\n")
    os.system("echo from a child")
    return sys.stdin.read()

def broken():
    return {}["absent"]

def not_json():
    return {1, 2}

def die():
    print("last words", file=sys.stderr, flush=True)
    os._exit(7)

def segfault():
    import ctypes
    ctypes.string_at(0)

def interpreter():
    return [sys.executable, "numpy" in sys.modules, sys.path]

def _private():
    return 1
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "served.py"
    path.write_text(MODULE)
    return path


@pytest.fixture
def worker(script):
    with Worker.start(script) as worker:
        yield worker


def test_the_process_keeps_its_state(worker):
    assert worker.call("put", name="a", value=[1, {"b": None}]) == ["a"]
    assert worker.call("put", name="b", value="é\n") == ["a", "b"]
    assert worker.pid != os.getpid()


def test_a_module_by_name_and_the_environment(script, monkeypatch):
    monkeypatch.syspath_prepend(str(script.parent))
    with Worker.start("served", env={"OARLOCK_TEST": "1"}) as worker:
        assert worker.call("environment", name="OARLOCK_TEST") == "1"
    assert "OARLOCK_TEST" not in os.environ


def test_printing_does_not_harm(worker):
    assert worker.call("noisy") == ""
    assert worker.call("put", name="a", value=1) == ["a"]
    assert worker.stderr().splitlines() == ["to stdout", "to file descriptor 1", "from a child"]


def test_exceptions_come_back_with_their_traceback(worker):
    with pytest.raises(WorkerFailed, match=r"served\.py, broken: KeyError: 'absent'") as caught:
        worker.call("broken")
    assert 'return {}["absent"]' in caught.value.traceback
    with pytest.raises(WorkerFailed, match="not JSON serializable"):
        worker.call("not_json")
    for name in ("absent", "_private", "state"):
        with pytest.raises(WorkerFailed, match=f"no public function '{name}'"):
            worker.call(name)
    assert worker.call("put", name="a", value=1) == ["a"], "it goes on"


@pytest.mark.parametrize(
    ("function", "how"), [("die", "exit code 7 during die"), ("segfault", "signal SIGSEGV")]
)
def test_a_dead_worker_says_how_it_died(worker, function, how):
    with pytest.raises(WorkerDied, match=how) as caught:
        worker.call(function)
    if function == "die":
        assert "last words" in str(caught.value)
    with pytest.raises(WorkerDied):
        worker.call("put", name="a", value=1)


def test_a_module_that_cannot_be_imported(tmp_path):
    with pytest.raises(WorkerFailed, match="No module named 'no_such_module'"):
        Worker.start("no_such_module")
    path = tmp_path / "wrong.py"
    path.write_text("x = (")
    with pytest.raises(WorkerFailed, match="SyntaxError"):
        Worker.start(path)
    assert not [child for child in psutil.Process().children() if "serve.py" in child.cmdline()]


def test_closing_ends_the_process(script):
    worker = Worker.start(script)
    worker.close()
    assert not psutil.pid_exists(worker.pid)
    with pytest.raises(WorkerDied, match="was closed"):
        worker.call("put", name="a", value=1)
    worker.close()


def test_another_interpreter_sees_nothing_of_ours(script, tmp_path, monkeypatch):
    venv.create(tmp_path / "other", with_pip=False, symlinks=True)
    python = tmp_path / "other" / "bin" / "python"
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "ours"))
    with Worker.start(script, python=python) as worker:
        executable, numpy, path = worker.call("interpreter")
    assert (executable, numpy) == (str(python), False)
    assert not set(path) & {
        str(tmp_path / "ours"),
        *(entry for entry in sys.path if "site-" in entry),
    }
    with pytest.raises(ValueError, match=r"module must be a \.py file"):
        Worker.start("json", python=python)
