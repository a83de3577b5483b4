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
def started(tmp_path):
    """Starts `oarlock-fleet launch`."""

    def start(more, *options, arguments=()):
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(more=more))
        return subprocess.Popen(
            [sys.executable, "-m", "oarlock.fleet_ext.cli.main", "launch", *options, str(script), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return start


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
