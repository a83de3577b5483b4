"""Ranks that are killed or stopped, as processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("process_rank.py")


@pytest.fixture
def three(tmp_path, request):
    """Three ranks that run, with so many seconds for each operation."""
    ranks = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(rank), "3", str(tmp_path), str(request.param)],
                         stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        for rank in range(3)
    ]  # fmt: skip
    for one in ranks:
        assert one.stdout.readline() == "running\n"
    yield ranks
    for one in ranks:
        one.kill()
        one.wait()


def said(rank):
    """When a rank failed, the kind of its error, and its words."""
    at, kind, words = rank.communicate(timeout=20)[0].split(" ", 2)
    return float(at), kind, words


@pytest.mark.parametrize("three", [30.0], indirect=True)
def test_a_killed_rank_is_known_at_once(three):
    begin = time.time()
    three[1].kill()
    for one in (three[0], three[2]):
        at, kind, words = said(one)
        assert kind in ("PeerLost", "Aborted") and "rank 1 is lost" in words
        assert at - begin < 10.0  # long before an operation's time is over


@pytest.mark.parametrize("three", [3.0], indirect=True)
def test_a_stopped_rank_is_named_after_the_timeout(three):
    begin = time.time()
    three[1].send_signal(signal.SIGSTOP)
    found = [said(one) for one in (three[0], three[2])]
    assert all("1" in words and "not answering" in words for _, _, words in found)
    assert any(kind == "TimedOut" for _, kind, _ in found)
    assert all(at - begin < 15.0 for at, _, _ in found)
