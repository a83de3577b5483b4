"""`oarlock-fleet serve` as a process."""

import re
import signal
import sys
import threading
from pathlib import Path

import httpx
import pytest
from fleets import LONG_S, SCRIPT, TERM, app_of, ask, events_of, until
from small_replica import words_of


@pytest.fixture
def serve():
    started = []

    def start(*arguments):
        started.append(app_of("serve", *arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_serves_until_it_is_told_to_end_and_ends_what_runs(serve, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("secret\n")
    process = serve("--replicas", "2", "--spares", "1", "--port", "0", "--token-file", str(secret), "--",
                    sys.executable, SCRIPT, "{port}")  # fmt: skip
    said = ""
    for line in process.stdout:
        said += line
        if "router at" in line:
            break
    url = re.search(r"router at (\S+)", said)[1]
    store = re.search(r"store is at (\S+)", said)[1]
    threading.Thread(target=process.stdout.read, daemon=True).start()
    with httpx.Client(timeout=LONG_S) as client:
        assert ask(client, url, "seed") is None  # it waited for a replica
        options = ("--store", store, "--token-file", str(secret))
        done = app_of("rescale", *options, "--replicas", "1")
        assert "1 replicas wanted, 1 routers" in done.communicate(timeout=LONG_S)[0]
        until(lambda: client.get(url + "/router/health").json()["replicas"] == 1, "one replica")
        events = events_of(client, url, {"seed": 1, "words": 20, "pause": 0.05})
        got = [next(events)]
        process.send_signal(TERM)
        got += list(events)
    assert [one["word"] for one in got[:-1]] == words_of(1, 20) and got[-1] == "[DONE]"
    assert process.wait(LONG_S) == 0


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "a command is needed"),
        (["--", "server", "--port", "8000"], "{port}"),
        (["--replay", "perhaps", "--", "{port}"], "never, unanswered, always"),
        (["--store", "nowhere", "--", "{port}"], "host:port"),
        (["--port", "0", "--", "/no/such/program", "{port}"], "/no/such/program"),
    ],
)
def test_what_cannot_be_done_is_told(serve, arguments, words):
    process = serve(*arguments)
    said = process.communicate(timeout=LONG_S)[0]
    assert process.returncode == 1 and words in said and "Traceback" not in said


def test_nothing_is_left_when_it_is_killed(serve):
    process = serve("--port", "0", "--", sys.executable, SCRIPT, "{port}")
    for line in process.stdout:
        if "begins" in line:
            break
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    children = [pid for task in tasks for pid in (task / "children").read_text().split()]
    assert children
    process.send_signal(signal.SIGKILL)
    process.wait()
    for pid in children:
        until(lambda: _dead(pid), "the replica's end")


def _dead(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"
