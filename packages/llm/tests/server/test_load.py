"""The load client against processes that serve the fake, and against servers that are wrong."""

import asyncio
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from oarlock.llm.server.load import LoadPlan, run

FAKE = Path(__file__).with_name("fake_service.py")


@pytest.fixture
def process(tmp_path):
    """Start the fake in a process of its own; returns it and its address."""
    started, errors = [], tmp_path / "errors"

    def start(*arguments):
        child = subprocess.Popen(
            [sys.executable, str(FAKE), *arguments],
            stdout=subprocess.PIPE,
            stderr=errors.open("a"),  # a pipe that nobody reads would stop the server
            text=True,
        )
        started.append(child)
        return child, child.stdout.readline().strip()

    yield start
    for child in started:
        if child.poll() is None:
            child.terminate()
        child.communicate(timeout=10)
        assert "Traceback" not in errors.read_text()


def test_mixed_load(process, tmp_path):
    child, url = process("--step-s", "0.002")
    plan = LoadPlan(url=url, model="fake/model", duration_s=1.5, prompts=8, pid=child.pid, seed=1)
    report = run(plan)
    assert report.bad == []
    outcomes = report.outcomes
    assert set(outcomes) == {"whole", "cancelled", "refused as malformed"}
    assert report.unsent == 0
    assert 0 < report.percentiles("first_s")["p50"] < report.percentiles("end_s")["max"] < 10
    assert report.memory and report.memory_growth() is not None
    report.save(tmp_path / "load.json")
    saved = json.loads((tmp_path / "load.json").read_text())
    assert saved["summary"]["outcomes"] == outcomes and saved["plan"]["streams"] == 64
    report.plot(tmp_path / "load.png")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
    assert "between pieces, ms: p50" in str(report)


def test_open_loop_with_a_full_queue(process):
    limits = json.dumps({"concurrency": 4, "queue": 2})
    _, url = process("--step-s", "0.004", "--limits", limits, "--key", "k")
    plan = LoadPlan(url=url, model="fake/model", key="k", duration_s=1, rate=80, prompts=2)
    report = run(plan)
    assert report.bad == []
    refused = [s for s in report.samples if s.outcome == "clean error"]
    assert refused and {s.status for s in refused} == {429} and report.outcomes["whole"] > 5
    assert "'k'" not in repr(plan) and "key" not in report.plan


@pytest.mark.parametrize("drain_s, clean", [(10, False), (0.2, True)])
def test_sigterm_under_load(process, drain_s, clean):
    """Every accepted request gets its whole answer, or is told that it does not."""
    limits = json.dumps({"drain_s": drain_s, "concurrency": 40})
    child, url = process("--step-s", "0.01", "--limits", limits)
    plan = LoadPlan(
        url=url, model="fake/model", duration_s=1.5, prompts=2, pid=child.pid, terminate_after_s=0.7
    )
    report = run(plan)
    assert report.bad == []
    if not clean:  # on a busy machine none may be whole before the signal
        assert report.outcomes["whole"] > 0
    aborted = [s for s in report.samples if s.status == 200 and s.outcome == "clean error"]
    assert bool(aborted) == clean
    assert report.exit_s < 6 and child.wait(5) == 0


def answering(make_body):
    """A server of one port which answers every request with ``make_body(request)``."""
    ready, address = threading.Event(), []

    async def handle(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(x[15:]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length")
        )
        writer.write(make_body(await reader.readexactly(length)))
        await writer.drain()
        writer.close()

    async def main():
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        address.append("http://127.0.0.1:%d" % server.sockets[0].getsockname()[1])
        ready.set()
        async with server:
            await asyncio.sleep(4)

    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    ready.wait(5)
    return address[0]


def response(body, status=b"200 OK", declared=None):
    length = b"%d" % (len(body) if declared is None else declared)
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: " + length + b"\r\n\r\n" + body


def test_what_is_wrong_is_found():
    """A server that mixes, loses, breaks off and takes anything: each is seen as what it is."""
    count = 0

    def make_body(request):
        nonlocal count
        count += 1
        right = json.dumps({"choices": [{"text": "right"}]}).encode()
        wrong = json.dumps({"choices": [{"text": "of another"}]}).encode()
        if count <= 1 or count % 4 == 0:
            return response(right)
        if count % 4 == 1:
            return response(wrong)
        if count % 4 == 2:
            return response(right, declared=len(right) + 9)  # breaks off
        return response(b"oops", status=b"500 Internal Server Error") if count % 8 == 3 else b""

    common = {"cancel": 0, "slow": 0, "streams": 2, "duration_s": 0.5, "prompts": 1, "request_s": 3}
    url = answering(make_body)
    report = run(LoadPlan(url=url, model="m", malformed=0, whole=1, **common))
    assert {"whole", "mixed", "lost"} <= set(report.outcomes)
    url = answering(lambda request: response(json.dumps({"choices": [{"text": "a"}]}).encode()))
    report = run(LoadPlan(url=url, model="m", malformed=1, whole=0, **common))
    assert set(report.outcomes) == {"wrong"}


def test_plans_are_checked():
    for fields, message in (
        ({"url": "https://a"}, "url must be"),
        ({"streams": 0}, "streams must be"),
        ({"rate": 0}, "rate must be"),
        ({"cancel": 0.9, "slow": 0.2}, "sum is at most 1"),
        ({"terminate_after_s": 1}, "needs pid"),
    ):
        with pytest.raises(ValueError, match=message):
            LoadPlan(**({"url": "http://127.0.0.1:1", "model": "m"} | fields))
    with pytest.raises(ValueError, match="server which answers"):
        run(LoadPlan(url="http://127.0.0.1:1", model="m"))
