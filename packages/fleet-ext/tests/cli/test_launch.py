"""Scripts as several ranks."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from oarlock.fleet_ext.job import Place, join

SCRIPT = """
import sys, time
import numpy as np
from oarlock.fleet_ext.job import join
with join() as job:
    total = job.group.all_reduce(np.full(3, job.rank + 1.0)).wait()
    print("total", total.tolist(), sys.argv[1:], flush=True)
    {more}
"""


@pytest.fixture
def launched(tmp_path):
    """Starts `oarlock-fleet launch` of a script, which is ended with the test."""
    processes = []

    def start(text, *options, arguments=()):
        script = tmp_path / f"script-{len(processes)}.py"
        script.write_text(text)
        processes.append(subprocess.Popen(
            [sys.executable, "-m", "oarlock.fleet_ext.cli.main", "launch", *options, str(script), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ))  # fmt: skip
        return processes[-1]

    yield start
    for one in processes:
        one.kill()
        one.communicate()


@pytest.fixture
def started(launched):
    """Starts `SCRIPT`."""
    return lambda more, *options, arguments=(): launched(
        SCRIPT.format(more=more), *options, arguments=arguments
    )


def test_ranks_find_each_other_and_lines_stay_whole(started, tmp_path):
    logs = tmp_path / "logs"
    process = started("pass", "--ranks", "3", "--logs", str(logs), arguments=("--rate", "1"))
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    expected = "total [6.0, 6.0, 6.0] ['--rate', '1']"
    assert sorted(out.splitlines()) == [f"[{rank}] {expected}" for rank in range(3)]
    assert (logs / "rank-2.log").read_text() == expected + "\n"


def test_two_machines_share_a_store(started, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        started("pass", "--ranks", "2", "--nodes", "2", "--node", str(node), "--store", f"127.0.0.1:{port}",
                "--token-file", str(token))
        for node in range(2)
    ]  # fmt: skip
    said = "".join(one.communicate(timeout=60)[0] for one in both)
    assert [one.returncode for one in both] == [0, 0]
    assert sorted(said.splitlines())[3] == "[3] total [10.0, 10.0, 10.0] []"


@pytest.fixture
def certificates(tmp_path):
    """A folder as `--tls` wants it."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path / "tls"
    folder.mkdir()
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for arguments in (
        ["req", "-x509", *curve, "-days", "2", "-subj", "/CN=job", "-keyout", "authority.key", "-out", "authority.pem"],
        ["req", *curve, "-subj", "/CN=rank", "-keyout", "rank.key", "-out", "rank.csr"],
        ["x509", "-req", "-in", "rank.csr", "-CA", "authority.pem", "-CAkey", "authority.key", "-CAcreateserial",
         "-days", "2", "-out", "rank.pem"],
    ):  # fmt: skip
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
    return folder


def test_an_encrypted_job(started, certificates):
    process = started("pass", "--ranks", "2", "--tls", str(certificates))
    out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert out.count("total [3.0, 3.0, 3.0]") == 2


def test_a_rank_that_fails_ends_the_others_and_is_told(started):
    process = started(
        "if job.rank == 1: sys.exit('this is why')\n    time.sleep(60)", "--ranks", "3"
    )
    begin = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and time.monotonic() - begin < 30
    assert "rank 1 ended with 1" in error and "this is why" in error


FAILS = """
import time
import numpy as np
from oarlock.fleet_ext.job import join
job = join()
while True:
    if job.rank == 2: {how}
    job.group.all_reduce(np.ones(3)).wait()
"""


@pytest.mark.parametrize(
    ("how", "words", "code"),
    (
        ("raise ValueError('bad data')", "rank 2 failed first: ValueError: bad data", 1),
        (
            "import os; os.kill(os.getpid(), 9)",
            "rank 2 was ended by SIGKILL, before any other",
            137,
        ),
    ),
)
def test_who_failed_first_is_told_and_the_others_need_a_line_each(launched, how, words, code):
    process = launched(FAILS.format(how=how), "--ranks", "3")
    out, error = process.communicate(timeout=60)
    assert process.returncode == code and words in error
    said = out.splitlines()
    assert sum("Traceback" in line for line in said) == (1 if code == 1 else 0)
    assert [line for line in said if line.startswith("[0]")][0].startswith("[0] rank 0 ends: rank ")
    assert sum(not line.startswith("[2]") for line in said) == 2
    assert "C++" not in out


def test_tracebacks_of_all_ranks_are_to_be_had(launched):
    process = launched(
        FAILS.format(how="raise ValueError('bad data')"), "--ranks", "3", "--tracebacks"
    )
    out, error = process.communicate(timeout=60)
    assert out.count("Traceback") == 3 and "rank 2 failed first: ValueError: bad data" in error


@pytest.fixture
def two_machines(launched, tmp_path):
    """Starts `launch` as one of two machines, that have a port in common."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def start(node, token, more=""):
        file = tmp_path / f"token-{node}"
        file.write_text(token)
        script = f"from oarlock.fleet_ext.job import join\njob = join({more})"
        return launched(script, "--nodes", "2", "--node", str(node), "--store", f"127.0.0.1:{port}",
                        "--token-file", str(file))  # fmt: skip

    return start


def test_waiting_for_a_machine_is_told_and_who_is_missing(two_machines):
    process = two_machines(0, "a", "timeout=6.0")
    out, error = process.communicate(timeout=60)
    assert process.returncode == 1
    first, second = out.splitlines()
    assert "rank 0 waits for rank 1 (machine 1)" in first
    assert "rank 1 (machine 1) did not come within 6 s" in second
    assert "rank 0 failed first: NotConnected" in error


def test_another_token_is_told(two_machines):
    waiting = two_machines(0, "a")
    process = two_machines(1, "b")
    out, _ = process.communicate(timeout=60)
    waiting.terminate()
    said, _ = waiting.communicate(timeout=30)
    assert process.returncode == 1 and "refuses rank 1: the other side has another token" in out
    assert "C++" not in said


def test_a_machine_may_begin_before_the_one_with_the_store(two_machines):
    early = two_machines(1, "a")
    line = early.stdout.readline()
    late = two_machines(0, "a")
    assert "rank 1 waits for the store" in line
    for one in (early, late):
        one.communicate(timeout=60)
        assert one.returncode == 0


def test_paddle_has_its_threads_and_does_not_warn(launched, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    script = """
import ctypes, paddle
from oarlock.fleet_ext.job import join
with join():
    path = next(line.split()[-1] for line in open("/proc/self/maps") if "libiomp5" in line)
    print("threads", ctypes.CDLL(path).omp_get_max_threads())
"""
    process = launched(script, "--threads", "2")
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0 and "threads 2" in out and "OMP_NUM_THREADS" not in out


def test_an_interrupt_comes_to_the_ranks(started):
    more = "try: time.sleep(60)\n    except KeyboardInterrupt: print('interrupted', flush=True)"
    process = started(more, "--ranks", "2")
    for _ in range(2):
        assert "total" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and out.count("interrupted") == 2


@pytest.mark.parametrize("told", (signal.SIGTERM, signal.SIGKILL))
def test_no_rank_outlives_its_launcher(started, told):
    process = started(
        "import os; print('pid', os.getpid(), flush=True); time.sleep(60)", "--ranks", "2"
    )
    pids = []
    while len(pids) < 2:
        words = process.stdout.readline().split()
        if "pid" in words:
            pids.append(int(words[-1]))
    process.send_signal(told)
    process.communicate(timeout=30)
    assert process.returncode == (143 if told == signal.SIGTERM else -9)
    until = time.monotonic() + 10.0
    while any(_alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("options", "words"),
    (
        (("--nodes", "2"), "--token-file"),
        (("--store", "192.0.2.1:7000"), "listened"),
        (("--node", "1"), "below --nodes"),
        (("--store", "here"), "host:port"),
        (("--store", "127.0.0.1:70000"), "host:port"),
    ),
)
def test_bad_options_are_told(started, options, words):
    process = started("pass", *options)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 2 and words in error


def test_a_place_travels_through_the_environment():
    place = Place(
        job="a", rank=1, size=3, local_rank=0, store=("10.0.0.1", 70), token="t", host="h"
    )
    assert Place.read(place.environment()) == place


def test_a_script_that_nobody_launched_is_told(monkeypatch):
    with pytest.raises(ValueError, match="oarlock-fleet launch"):
        join()
    with pytest.raises(ValueError, match="OARLOCK_FLEET_RANK must be a number"):
        Place.read(
            Place(job="a", rank=1, size=3, local_rank=0, store=("h", 7), token="t").environment()
            | {"OARLOCK_FLEET_RANK": "x"}
        )
